"""Tasks: one file a source. ``load("digits")`` gives a :class:`~kd_env.tasks.task.Task`."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.plugins import resolve
from kd_env.tasks.task import Defaults, Split, Task

__all__ = ["TASKS", "Defaults", "Split", "Task", "load", "with_data_dir"]

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

REFUSED = {"glue/stsb": "is regression", "glue/ax": "has no training data"}


def load(text: str, data_dir: str | None = None) -> Task:
    """Load a built-in task, ``folder:PATH``, or ``module:function`` of one's own, with options as ``domains(difficulty=0.3)``.

    A task is loaded once in a process: what changes in its files after that is not noticed.

    Args:
        text: the task's name; it carries all that decides the task.
        data_dir: shorthand for the option of that name, see :func:`with_data_dir`.

    Raises:
        InputError: no such task, options it does not take, or data that cannot be used.
    """
    return _load(with_data_dir(text, data_dir))


def with_data_dir(text: str, data_dir: str | None) -> str:
    """The task's name with ``data_dir`` among its options: ``glue/sst2`` becomes ``glue/sst2(data_dir=PATH)``.

    Raises:
        InputError: it has that option already, or the path cannot stand in a name.
    """
    if data_dir is None:
        return text
    name, options = _parse(text)
    if "data_dir" in options:
        raise InputError(f"task {text!r} names its data_dir, and {data_dir!r} is given too; give one of them")
    options["data_dir"] = data_dir
    whole = str(spec.Spec(name, options))
    try:
        same = _parse(whole) == (name, options)
    except InputError:
        same = False
    if not same:
        raise InputError(f"data_dir {data_dir!r} cannot stand in a task's name; use a path without commas and brackets, a number as ./7")
    return whole


@lru_cache(maxsize=8)
def _load(text: str) -> Task:
    name, options = _parse(text)
    if name in REFUSED:
        raise InputError(f"task {name!r} {REFUSED[name]}; tasks are classification: {', '.join(sorted(TASKS))}")
    source, colon, path = name.partition(":")
    given = [path] if f"{source}{colon}PATH" in TASKS else []
    if name not in TASKS and not colon:
        raise spec.unknown("task", name, TASKS)
    function = TASKS[f"{source}:PATH"] if given else TASKS.get(name, name)
    task = spec.call_plugin(f"task {text!r}", resolve(function, "task"), options, *given)
    if not isinstance(task, Task):
        raise InputError(f"task {text!r}: returned {type(task).__name__}, expected a kd_env.tasks.Task")
    order = np.random.default_rng(0).permutation(len(task.train))  # a row number, which a policy is told, must not tell label or group
    return replace(task, train=task.train.take(order))


def _parse(text: str) -> spec.Spec:
    """A spec; the path of ``SOURCE:PATH`` may hold brackets: options are what the last ones hold, unless the folder is called that."""
    name, colon, path = text.strip().partition(":")
    if f"{name}{colon}PATH" not in TASKS:
        return spec.parse(text)
    if path.endswith(")") and not Path(path).expanduser().is_dir():
        path, _, options = path.rpartition("(")
        return spec.Spec(f"{name}:{path}", spec.parse(f"x({options}").options)
    return spec.Spec(f"{name}:{path}", {})
