"""``folder:PATH``: texts of one's own. In: a folder of ``.tsv``, ``.csv`` or ``.jsonl`` files. Out: a task.

``train`` must be there; ``reward``, ``validation``, ``dev`` and ``test`` may be. Each holds ``sentence``, or ``sentence1`` and
``sentence2``, and ``label``, and all or none of them ``group`` (or ``domain``). What is missing is carved, see :mod:`kd_env.tasks.splits`.
``folder:PATH(unlabelled=true)`` adds the texts of ``unlabelled`` (or ``unlabeled``) to train, for teachers to label: no ``label`` is read.
"""

from __future__ import annotations

from pathlib import Path

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.tables import READERS, read_table
from kd_env.tasks.task import Task
from kd_env.tasks.texts import text_task

ROLES = ("train", "reward", "validation", "dev", "test")
UNLABELLED = ("unlabelled", "unlabeled")


def load(path: str, metric: str = "accuracy", unlabelled: bool = False) -> Task:
    """Load the folder.

    Args:
        path: the folder.
        metric: ``accuracy``, ``f1`` or ``mcc``.
        unlabelled: add the unlabelled texts to train.

    Raises:
        InputError: a file is missing or malformed; it names the file, the line and the mend.
    """
    folder = require_folder(path, f"folder:{path}")
    files = {role: file for role in ROLES if (file := find_file(folder, role)) is not None}
    if "train" not in files:
        found = ", ".join(sorted(one.name for one in folder.iterdir())[:10]) or "nothing"
        raise InputError(f"{folder}: no train.tsv, train.csv or train.jsonl; the folder holds {found}")
    title = str(spec.Spec(f"folder:{path}", options_of(metric, unlabelled)))
    more = find_unlabelled(folder)
    if unlabelled and more is None:
        raise InputError(f"task {title!r}: {folder} holds no unlabelled.tsv, .csv or .jsonl; add it, or leave unlabelled out")
    known = {file.name for file in (*files.values(), more) if file is not None}
    unused = sorted(one.name for one in folder.iterdir() if one.suffix in READERS and one.name not in known)
    notes = [f"not read: {', '.join(unused)} (files are {', '.join(ROLES)})"] if unused else []
    if more is not None and not unlabelled:
        notes.append(f"not read: {more.name}; for its texts in train, taught by the teachers alone, ask for folder:PATH(unlabelled=true)")
    added = read_table(more) if more is not None and unlabelled else None
    return text_task(title, {role: read_table(file) for role, file in files.items()}, metric, notes=notes, unlabelled=added)


def options_of(metric: str, unlabelled: object) -> dict[str, object]:
    """What a task's name says of its options: those that are not the default.

    Raises:
        InputError: ``unlabelled`` is neither true nor false.
    """
    spec.one_of("task folder", True, False, unlabelled=unlabelled)
    return {**({} if metric == "accuracy" else {"metric": metric}), **({"unlabelled": True} if unlabelled else {})}


def find_unlabelled(folder: Path) -> Path | None:
    """The file of unlabelled texts, in either spelling, or ``None``.

    Raises:
        InputError: there are several.
    """
    found = [file for name in UNLABELLED if (file := find_file(folder, name)) is not None]
    if len(found) > 1:
        raise InputError(f"{folder}: both {found[0].name} and {found[1].name}; keep one of them")
    return found[0] if found else None


def require_folder(path: object, task: str) -> Path:
    """``path`` as a folder that can be listed.

    Raises:
        InputError: it is not one.
    """
    if path is None:
        raise InputError(f"task {task!r} is read from a folder; name it, as --data-dir PATH or {task}(data_dir=PATH)")
    if not isinstance(path, str) or not path:
        raise InputError(f"task {task!r}: {path!r} is no folder; name one, a number as ./7")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        reason = "is a file" if folder.is_file() else "does not exist"
        raise InputError(f"task {task!r}: {folder} {reason}; name a folder of data files")
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise InputError(f"task {task!r}: {folder} cannot be read ({error.strerror}); check who may read it") from None
    return folder


def find_file(folder: Path, role: str) -> Path | None:
    """The one file of that name, with any suffix that can be read, or ``None``.

    Raises:
        InputError: there are several.
    """
    found = [path for suffix in READERS if (path := folder / f"{role}{suffix}").exists()]
    if len(found) > 1:
        raise InputError(f"{folder}: both {found[0].name} and {found[1].name}; keep one file of each name")
    return found[0] if found else None
