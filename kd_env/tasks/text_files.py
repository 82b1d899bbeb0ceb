"""``folder:PATH``: your own texts, read from ``.tsv``, ``.csv`` or ``.jsonl`` files.

``train`` must be there; ``reward``, ``validation``, ``dev`` and ``test`` may be. Each holds ``sentence``, or ``sentence1`` and
``sentence2``, and ``label``; either all or none of them hold ``group`` (or ``domain``). Missing splits are carved, see
:mod:`kd_env.tasks.splits`. ``folder:PATH(unlabelled=true)`` adds the texts of ``unlabelled`` (or ``unlabeled``) to train, for the teachers
to label; a ``label`` column of that file is not read.
"""

from __future__ import annotations

from pathlib import Path

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.folders import ROLES, find_file, require_folder, require_single
from kd_env.tasks.tables import READERS, read_table
from kd_env.tasks.task import Task, task_name
from kd_env.tasks.texts import text_task

UNLABELLED = ("unlabelled", "unlabeled")
"""Both spellings of the file of texts without labels."""


def load(path: str, metric: str = "accuracy", unlabelled: bool = False) -> Task:
    """Load the folder.

    Args:
        path: the folder.
        metric: ``accuracy``, ``f1`` or ``mcc``.
        unlabelled: add the unlabelled texts to train.

    Raises:
        InputError: a file is missing or malformed; it names the file, the line and how to fix it.
    """
    folder = require_folder(path, f"folder:{path}")
    files = {role: file for role in ROLES if (file := find_file(folder, role)) is not None}
    if "train" not in files:
        content = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        raise InputError(f"{folder}: no train.tsv, train.csv or train.jsonl; the folder holds {content}")
    name = name_with_options(f"folder:{path}", metric, unlabelled)
    unlabelled_file = find_unlabelled(folder)
    if unlabelled and unlabelled_file is None:
        raise InputError(f"task {name!r}: {folder} holds no unlabelled.tsv, .csv or .jsonl; add it, or leave unlabelled out")
    known = {file.name for file in (*files.values(), unlabelled_file) if file is not None}
    unused = sorted(file.name for file in folder.iterdir() if file.suffix in READERS and file.name not in known)
    notes = [f"not read: {', '.join(unused)} (files are {', '.join(ROLES)})"] if unused else []
    if unlabelled_file is not None and not unlabelled:
        notes.append(
            f"not read: {unlabelled_file.name}; folder:PATH(unlabelled=true) adds its texts to train, where only the teachers teach them"
        )
    return text_task(
        name,
        {role: read_table(file) for role, file in files.items()},
        metric,
        notes=notes,
        unlabelled=read_table(unlabelled_file) if unlabelled_file is not None and unlabelled else None,
    )


def name_with_options(name: str, metric: str, unlabelled: object) -> str:
    """Return the task's name with these options, where they are not the default.

    Raises:
        InputError: ``unlabelled`` is neither true nor false.
    """
    spec.one_of(f"task {name}", True, False, unlabelled=unlabelled)
    return task_name(name, {"metric": metric, "unlabelled": unlabelled}, {"metric": "accuracy", "unlabelled": False})


def find_unlabelled(folder: Path) -> Path | None:
    """Return the file of unlabelled texts, in either spelling, or ``None``.

    Raises:
        InputError: there are several.
    """
    return require_single([file for name in UNLABELLED if (file := find_file(folder, name)) is not None], "one of them")
