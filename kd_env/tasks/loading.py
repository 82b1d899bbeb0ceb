"""Load tasks by name: built-in ones, folders of your own data, and ``module:function``."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.plugins import resolve
from kd_env.tasks.task import Task

TASKS = {
    "digits": "kd_env.tasks.digits:load",
    "domains": "kd_env.tasks.domains:load",
    **{f"glue/{name}": f"kd_env.tasks.glue:{name}" for name in ("sst2", "mrpc", "rte", "cola", "qnli", "wnli", "qqp", "mnli")},
    "clinc150": "kd_env.tasks.clinc150:load",
    "fdu-mtl": "kd_env.tasks.fdu_mtl:load",
    "fashion-mnist": "kd_env.tasks.fashion_mnist:load",
    "folder:PATH": "kd_env.tasks.text_files:load",
    "images:PATH": "kd_env.tasks.image_folders:load",
}
"""The function that loads each task, by the task's name; ``PATH`` stands for a folder."""

UNSUPPORTED = {"glue/stsb": "is regression", "glue/ax": "has no training data"}
"""Tasks that a user may look for, and why they are not there."""


def load(text: str, data_dir: str | None = None) -> Task:
    """Load a built-in task, ``folder:PATH``, ``images:PATH`` or ``module:function``, with options as ``domains(difficulty=0.3)``.

    A task is loaded once in a process: later changes of its files are not noticed.

    Args:
        text: name of the task; it carries all that decides the task.
        data_dir: shorthand for the option of that name, see :func:`with_data_dir`.

    Raises:
        InputError: there is no such task, it does not take the options, or its data cannot be used.
    """
    return _load(with_data_dir(text, data_dir))


def with_data_dir(text: str, data_dir: str | None) -> str:
    """Return the name of the task with ``data_dir`` among its options: ``glue/sst2`` becomes ``glue/sst2(data_dir=PATH)``.

    Raises:
        InputError: the name has that option already, or the path cannot be written in a name.
    """
    if data_dir is None:
        return text
    name, options = _parse(text)
    if "data_dir" in options:
        raise InputError(f"task {text!r} has the option data_dir, and data_dir={data_dir!r} is given too; give one of them")
    options["data_dir"] = data_dir
    full_name = str(spec.Spec(name, options))
    try:
        reads_back = _parse(full_name) == (name, options)
    except InputError:
        reads_back = False
    if not reads_back:
        raise InputError(
            f"data_dir {data_dir!r} cannot be written in the name of a task; "
            "use a path without commas and brackets, and write a number as ./7"
        )
    return full_name


@lru_cache(maxsize=8)
def _load(text: str) -> Task:
    name, options = _parse(text)
    if name in UNSUPPORTED:
        raise InputError(f"task {name!r} {UNSUPPORTED[name]}; supported classification tasks: {', '.join(sorted(TASKS))}")
    source, colon, path = name.partition(":")
    from_path = f"{source}{colon}PATH" in TASKS
    if name not in TASKS and not colon:
        raise spec.unknown("task", name, TASKS)
    function = TASKS[f"{source}:PATH"] if from_path else TASKS.get(name, name)
    task = spec.call_plugin(f"task {text!r}", resolve(function, "task"), options, *([path] if from_path else []))
    if not isinstance(task, Task):
        raise InputError(f"task {text!r}: returned {type(task).__name__}, expected a kd_env.tasks.Task")
    order = np.random.default_rng(0).permutation(len(task.train))  # policies see row numbers, which must not reveal labels or groups
    return replace(task, train=task.train.take(order))


def _parse(text: str) -> spec.Spec:
    """Parse a task's name. The path of ``SOURCE:PATH`` may hold brackets: the last ones hold options, unless such a folder exists."""
    name, colon, path = text.strip().partition(":")
    if f"{name}{colon}PATH" not in TASKS:
        return spec.parse(text)
    if path.endswith(")") and not Path(path).expanduser().is_dir():
        path, _, options = path.rpartition("(")
        return spec.Spec(f"{name}:{path}", spec.parse(f"x({options}").options)
    return spec.Spec(f"{name}:{path}", {})
