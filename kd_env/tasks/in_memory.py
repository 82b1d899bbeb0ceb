"""Make a text task of a ``datasets.Dataset`` or ``DatasetDict`` in memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.tasks.columnar import dataset_table
from kd_env.tasks.columns import ColumnNames
from kd_env.tasks.folders import ROLES
from kd_env.tasks.task import Task
from kd_env.tasks.text_files import without_unlabelled_test
from kd_env.tasks.texts import Reading, text_task
from kd_env.tasks.wordpiece import WordPiece


def from_datasets(
    data: Any,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    group: str | None = None,
    metric: str = "accuracy",
    name: str = "data",
) -> Task:
    """Make a task of a dataset.

    Args:
        data: a ``datasets.Dataset``, which is ``train``, or a ``DatasetDict`` with ``train`` and, if there are, ``reward``, ``validation``,
            ``dev`` and ``test``. Missing splits are carved from ``train``, see :mod:`kd_env.tasks.splits`.
        text: column of the text, or of the first text of a pair. Default: ``sentence``, or ``sentence1`` and ``sentence2``.
        pair: column of the second text of a pair.
        label: column of the class. Default: ``label``.
        group: column of the group. Default: ``group`` or ``domain``.
        metric: as :attr:`Task.metric`.
        name: name of the task.

    Raises:
        InputError: the data are not datasets, have no split ``train``, or have columns that cannot be used.
    """
    parts = dict(data) if isinstance(data, Mapping) else {"train": data}
    for split, part in parts.items():
        if not hasattr(part, "with_format") or not hasattr(part, "features"):
            raise InputError(f"task {name!r}, {split}: a {type(part).__name__} is not a datasets.Dataset; give one, or a DatasetDict")
        if not hasattr(part, "num_rows"):
            raise InputError(f"task {name!r}, {split}: a {type(part).__name__} is a stream; load it without streaming")
    if "train" not in parts:
        raise InputError(f"task {name!r}: no split train, found {', '.join(map(str, parts))}; rename one")
    tables = {role: dataset_table(Path(role), parts[role]) for role in ROLES if role in parts}
    names, unused = ColumnNames(text, pair, label, group), sorted(map(str, parts.keys() - set(ROLES)))
    notes = [f"not read: {', '.join(unused)} (splits are {', '.join(ROLES)})"] if unused else []
    notes += without_unlabelled_test(tables, names)
    reading = Reading(names, strict=False, tokenizer=partial(WordPiece, marks=True))
    return text_task(name, tables, metric, notes=notes, reading=reading).shuffled()
