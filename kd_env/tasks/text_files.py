"""``folder:PATH``: your own texts, read from ``.tsv``, ``.csv``, ``.jsonl`` or ``.parquet`` files, or a folder of the library ``datasets``.

``train`` must be there; ``reward``, ``validation``, ``dev`` and ``test`` may be. Each holds ``sentence``, or ``sentence1`` and
``sentence2``, and ``label``, or the columns that options name; either all or none of them hold ``group`` (or ``domain``). Missing splits
are carved, see :mod:`kd_env.tasks.splits`. ``folder:PATH(unlabelled=true)`` adds the texts of ``unlabelled`` (or ``unlabeled``) to train,
for the teachers to label; a ``label`` column of that file is not read.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.columnar import is_dataset
from kd_env.tasks.columns import ColumnNames, has_labels, label_name
from kd_env.tasks.folders import ROLES, SUFFIXES, UNLABELLED, find_file, read_split, require_folder, require_single
from kd_env.tasks.tables import Table
from kd_env.tasks.task import Task, task_name
from kd_env.tasks.texts import Reading, text_task
from kd_env.tasks.wordpiece import WordPiece


def load(
    path: str,
    metric: str = "accuracy",
    unlabelled: bool = False,
    text: object = None,
    pair: object = None,
    label: object = None,
    group: object = None,
    strict: bool = False,
    ignore_case: bool = False,
    cased: bool = False,
) -> Task:
    """Load the folder.

    Args:
        path: the folder.
        metric: ``accuracy``, ``f1``, ``f1(class=NAME)``, ``f1_macro`` or ``mcc``.
        unlabelled: add the unlabelled texts to train.
        text: column of the text, or of the first text of a pair.
        pair: column of the second text of a pair.
        label: column of the class.
        group: column of the group.
        strict: refuse rows without a text or a label, instead of leaving them out.
        ignore_case: labels that differ in case and spacing alone are one class.
        cased: the built-in tokenizer keeps capital letters.

    Raises:
        InputError: a file is missing or malformed; it names the file, the line and how to fix it.
    """
    folder = require_folder(path, f"folder:{path}")
    spec.one_of(f"task folder:{path}", True, False, strict=strict, ignore_case=ignore_case, cased=cased)
    names = ColumnNames(*(None if column is None else str(column) for column in (text, pair, label, group)))
    if len(set(filter(None, names))) < len(list(filter(None, names))):
        raise InputError(f"task folder:{path}: text, pair, label and group are different columns, and two have one name; correct it")
    named = {key: value for key, value in names._asdict().items() if value is not None}
    switches = {"strict": strict, "ignore_case": ignore_case, "cased": cased}
    name = name_with_options(f"folder:{path}", metric, unlabelled, **named, **{key: True for key, value in switches.items() if value})
    files = _files(folder)
    unlabelled_file = find_unlabelled(folder)
    if unlabelled and unlabelled_file is None:
        raise InputError(f"task {name!r}: {folder} holds no unlabelled.tsv, .csv, .jsonl or .parquet; add it, or leave unlabelled out")
    tables = {role: read_split(file) for role, file in files.items()}
    notes = _not_read(folder, files, unlabelled_file)
    if unlabelled_file is not None and not unlabelled:
        notes.append(
            f"not read: {unlabelled_file.name}; folder:PATH(unlabelled=true) adds its texts to train, where only the teachers teach them"
        )
    notes += without_unlabelled_test(tables, names)
    return text_task(
        name,
        tables,
        metric,
        notes=notes,
        unlabelled=read_split(unlabelled_file) if unlabelled_file is not None and unlabelled else None,
        reading=Reading(names, strict, ignore_case, partial(WordPiece, marks=True, cased=cased)),
    )


def name_with_options(name: str, metric: str, unlabelled: object, **options: object) -> str:
    """Return the task's name with these options, where they are not the default.

    Args:
        options: further options, none of which has its default.

    Raises:
        InputError: ``unlabelled`` is neither true nor false.
    """
    spec.one_of(f"task {name}", True, False, unlabelled=unlabelled)
    defaults = {"metric": "accuracy", "unlabelled": False, **dict.fromkeys(options)}
    return task_name(name, {"metric": metric, "unlabelled": unlabelled, **options}, defaults)


def find_unlabelled(folder: Path) -> Path | None:
    """Return the file of unlabelled texts, in either spelling, or ``None``.

    Raises:
        InputError: there are several.
    """
    return require_single([file for name in UNLABELLED if (file := find_file(folder, name)) is not None], "one of them")


def _files(folder: Path) -> dict[str, Path]:
    """Return the file of each split, ``train`` at least."""
    if is_dataset(folder):
        return {"train": folder}
    files = {role: file for role in ROLES if (file := find_file(folder, role)) is not None}
    if "train" not in files:
        content = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        raise InputError(f"{folder}: no train.tsv, train.csv, train.jsonl or train.parquet; the folder holds {content}")
    return files


def _not_read(folder: Path, files: dict[str, Path], unlabelled_file: Path | None) -> list[str]:
    known = {file.name for file in (*files.values(), unlabelled_file) if file is not None}
    known |= {file.name for role in ROLES for file in folder.glob(f"{role}-*-of-*")}
    unused = sorted(file.name for file in folder.iterdir() if (file.suffix in SUFFIXES or is_dataset(file)) and file.name not in known)
    return [f"not read: {', '.join(unused)} (files are {', '.join(ROLES)})"] if unused else []


def without_unlabelled_test(tables: dict[str, Table], names: ColumnNames) -> list[str]:
    """Drop, in place, a test table without labels; return a note on it."""
    if "test" not in tables or has_labels(tables["test"], names, tables["train"]) or not has_labels(tables["train"], names):
        return []
    table = tables.pop("test")
    problem = "is empty" if label_name(names) in table.columns else "is missing"
    return [
        f"{table.path.name} is passed over, since its column {label_name(names)} {problem}; "
        "to teach with its texts, rename it to unlabelled and add the option unlabelled=true"
    ]
