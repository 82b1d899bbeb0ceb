"""Load tasks by name: built-in ones, folders of your own data, and ``module:function``."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from kd_env import spec
from kd_env.errors import InputError
from kd_env.plugins import resolve
from kd_env.tasks.folders import content_stamp, files_of_texts, folders_of_images
from kd_env.tasks.task import Task, quoted

TASKS = {
    "digits": "kd_env.tasks.digits:load",
    "domains": "kd_env.tasks.domains:load",
    **{f"glue/{name}": f"kd_env.tasks.glue:{name}" for name in ("sst2", "mrpc", "rte", "cola", "qnli", "wnli", "qqp", "mnli")},
    "clinc150": "kd_env.tasks.clinc150:load",
    "fdu-mtl": "kd_env.tasks.fdu_mtl:load",
    "fashion-mnist": "kd_env.tasks.fashion_mnist:load",
    "mnist": "kd_env.tasks.mnist:load",
    "cifar10": "kd_env.tasks.cifar:cifar10",
    "cifar100": "kd_env.tasks.cifar:cifar100",
    "tiny-imagenet": "kd_env.tasks.tiny_imagenet:load",
    "folder:PATH": "kd_env.tasks.text_files:load",
    "images:PATH": "kd_env.tasks.image_folders:load",
}
"""The function that loads each task, by the task's name; ``PATH`` stands for a folder."""

UNSUPPORTED = {"glue/stsb": "is regression", "glue/ax": "has no training data"}
"""Tasks that a user may look for, and why they are not there."""


def load(text: str, data_dir: str | None = None) -> Task:
    """Load a built-in task, ``folder:PATH``, ``images:PATH`` or ``module:function``, with options as ``domains(difficulty=0.3)``.

    A task is loaded once in a process. It is loaded again, and replaced, after the name, the size or the time of change of one of its files
    is another one: of ``folder:PATH`` and ``images:PATH`` a file of a split, with ``data_dir`` any file in that folder.

    Args:
        text: name of the task with its options, which determine it fully.
        data_dir: shorthand for the option of that name, see :func:`with_data_dir`.

    Raises:
        InputError: there is no such task, it does not take the options, or its data cannot be used.
    """
    full_text = with_data_dir(text, data_dir)
    loaded, source_stamp = _loaded(full_text), _source(full_text)
    task = loaded.get(source_stamp)
    if task is None:
        loaded.clear()  # before the new task takes memory
        task = loaded[source_stamp] = _load(full_text)
    return task


def with_data_dir(text: str, data_dir: str | None) -> str:
    """Return the name of the task with ``data_dir`` among its options: ``glue/sst2`` becomes ``glue/sst2(data_dir=PATH)``.

    Raises:
        InputError: the name has that option already, or the path cannot be written in a name.
    """
    return with_options(text, data_dir=data_dir)


def with_options(text: str, /, **options: object) -> str:
    """Return the name of the task with these options added; those that are ``None`` are left out.

    ``with_options("folder:data", text="review")`` is ``folder:data(text=review)``.

    Raises:
        InputError: the name has such an option already, or a value cannot be written in a name.
    """
    added = {key: value for key, value in options.items() if value is not None}
    if not added:
        return text
    name, known = _parse(text)
    for key, value in added.items():
        if key in known:
            raise InputError(f"task {text!r} has the option {key}, and {key}={value!r} is given too; give one of them")
        known[key] = value
    full_name = str(spec.Spec(name, {key: quoted(value) for key, value in known.items()}))
    try:
        reads_back = _parse(full_name) == (name, known)
    except InputError:
        reads_back = False
    if not reads_back:
        added_text = ", ".join(f"{key}={value!r}" for key, value in added.items())
        raise InputError(f"task {text!r}: {added_text} cannot be written in the name of a task; use a name without brackets and quotes")
    return full_name


def _source(text: str) -> tuple[str, str]:
    """Return the whole path of the task's folder and a stamp of what is read of it; empty for a task without a folder."""
    name, options = _parse(text)
    source, _, path = name.partition(":")
    folder = path if f"{source}:PATH" in TASKS else options.get("data_dir")
    if not isinstance(folder, str) or not folder:
        return "", ""
    place = Path(folder).expanduser().absolute()
    paths = {"folder": files_of_texts, "images": folders_of_images}[source](place) if f"{source}:PATH" in TASKS else [place]
    return str(place), content_stamp(paths)


@lru_cache(maxsize=8)
def _loaded(text: str) -> dict[tuple[str, str], Task]:
    """Return the task that was loaded last by this text, by its :func:`_source`, in a dict to be changed; it is empty before."""
    del text
    return {}


def _load(text: str) -> Task:
    name, options = _parse(text)
    if name in UNSUPPORTED:
        raise InputError(f"task {name!r} {UNSUPPORTED[name]}; supported classification tasks: {', '.join(sorted(TASKS))}")
    source, colon, path = name.partition(":")
    from_path = f"{source}{colon}PATH" in TASKS
    if name not in TASKS and not colon:
        raise spec.unknown("task", name, TASKS)
    function = resolve(TASKS[f"{source}:PATH"] if from_path else TASKS.get(name, name), "task")
    max_length = None if _takes(function, "max_length") else options.pop("max_length", None)
    task = spec.call_plugin(f"task {text!r}", function, options, *([path] if from_path else []))
    if not isinstance(task, Task):
        raise InputError(f"task {text!r}: returned {type(task).__name__}, expected a kd_env.tasks.Task")
    if max_length is not None:
        if task.kind != "text":
            raise InputError(f"task {text!r}: max_length={max_length!r} is for texts, and this task holds images; leave it out")
        spec.numbers(f"task {task.name}", least=3, whole=True, max_length=max_length)
        full_name = with_options(task.name, max_length=max_length) if from_path else f"{task.name} [{max_length} tokens]"
        task = replace(task, max_length=max_length, name=full_name)
    return task.shuffled()


def _takes(function: object, option: str) -> bool:
    try:
        return callable(function) and option in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _parse(text: str) -> spec.Spec:
    """Parse a task's name. The path of ``SOURCE:PATH`` may hold brackets: the last ones hold options, unless such a folder exists."""
    name, colon, path = text.strip().partition(":")
    if f"{name}{colon}PATH" not in TASKS:
        return spec.parse(text)
    if path.endswith(")") and not Path(path).expanduser().is_dir():
        start = _opening_bracket(path)
        return spec.Spec(f"{name}:{path[:start]}", spec.parse(f"x{path[start:]}").options)
    return spec.Spec(f"{name}:{path}", {})


def _opening_bracket(text: str) -> int:
    """Return the position of the bracket that the last character closes, or of the last opening one if the brackets do not match."""
    depth = 0
    for position in range(len(text) - 1, -1, -1):
        depth += (text[position] == ")") - (text[position] == "(")
        if depth == 0:
            return position
    return max(text.rfind("("), 0)
