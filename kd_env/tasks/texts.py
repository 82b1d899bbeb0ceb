"""Make a text task from the tables of its files.

A table of unlabelled texts is added to train at the end, when the splits are final: their number then changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.columns import COLUMNS, USUAL, ColumnNames, TextColumns, require_same_columns, text_columns, unused_columns
from kd_env.tasks.labels import class_names_of, normalised_labels, numbers_of, spelling_notes
from kd_env.tasks.metrics import metric_notes
from kd_env.tasks.splits import four_splits, in_held_out_splits, small_validation_notes
from kd_env.tasks.tables import Table
from kd_env.tasks.task import Defaults, Split, Task
from kd_env.tasks.wordpiece import WordPiece


class Reading(NamedTuple):
    """How the files are read. The defaults are those of published data.

    Attributes:
        names: columns that are not called as usual.
        strict: refuse rows without a text or a label, instead of leaving them out.
        ignore_case: labels that differ in case and spacing alone are one class.
        tokenizer: makes the task's tokenizer of the texts of train.
    """

    names: ColumnNames = USUAL
    strict: bool = True
    ignore_case: bool = False
    tokenizer: Callable[[np.ndarray], Callable[[], Any]] = WordPiece


def text_task(
    name: str,
    tables: Mapping[str, Table],
    metric: str,
    class_names: Sequence[str] | None = None,
    notes: Iterable[str] = (),
    unlabelled: Table | None = None,
    reading: Reading = Reading(),  # noqa: B008
) -> Task:
    """Make the task; :mod:`kd_env.tasks.splits` says what each file becomes.

    Args:
        tables: by ``train``, ``reward``, ``validation``, ``dev``, ``test``; at least ``train``.
        class_names: in the order of their numbers. Default: the labels of ``train``, see :func:`~kd_env.tasks.labels.class_names_of`.
        notes: what the user should know of the files, before the notes that are added here.
        unlabelled: texts without labels to add to train, with ``group`` or without.
        reading: how the files are read.

    Raises:
        InputError: a column is missing, a cell cannot be used, or the files do not fit together; it names file and line.
    """
    files = {role: text_columns(table, names=reading.names, strict=reading.strict) for role, table in tables.items()}
    train = files["train"]
    for file in files.values():
        require_same_columns(train, file)
    file_notes = [note for file in files.values() for note in file.notes]
    if class_names is None:
        class_names = class_names_of(train, reading.ignore_case)
        files = {role: file._replace(labels=normalised_labels(file, class_names, reading.ignore_case)) for role, file in files.items()}
        file_notes += spelling_notes(class_names)
    group_names = sorted(set(train.groups or ()))
    file_notes += spelling_notes(group_names, of_groups=True)
    available = {role: _split(file, class_names, group_names) for role, file in files.items()}
    splits, split_notes = four_splits(name, available, {role: file.table.path.name for role, file in files.items()}, class_names)
    if unlabelled is not None:
        splits["train"], transfer_notes = _add_unlabelled(name, unlabelled, train, splits, group_names, reading)
        split_notes += transfer_notes
    used = (*COLUMNS, *train.used) if reading.names == USUAL else train.used
    unused = unused_columns([*tables.values(), *([unlabelled] if unlabelled is not None else [])], used)
    metric_note = metric_notes(metric, class_names, splits["train"].labels)
    return Task(
        name=name,
        kind="text",
        train=splits["train"],
        reward=splits["reward"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=tuple(class_names),
        group_names=tuple(group_names),
        metric=metric,
        tokenizer=reading.tokenizer(splits["train"].inputs),
        notes=(*notes, *unused, *file_notes, *split_notes, *metric_note, *small_validation_notes(len(splits["validation"]))),
        unlabelled=unlabelled is not None,
        defaults=Defaults(
            pool="text/experts" if group_names else "text/sizes",
            student="tiny-bert(width=64,layers=2,dropout=0)",
            updates=1000,
            kd_weight=1.0,
            temperature=2.0,
            optimizer="adam(lr=0.001)",
        ),
    )


def _split(file: TextColumns, class_names: Sequence[str], group_names: Sequence[str]) -> Split:
    labels = numbers_of(file.table, "label", file.labels, class_names)
    return Split(file.inputs, labels, None if file.groups is None else numbers_of(file.table, "group", file.groups, group_names))


def _add_unlabelled(
    name: str, table: Table, train: TextColumns, splits: Mapping[str, Split], group_names: Sequence[str], reading: Reading
) -> tuple[Split, list[str]]:
    """Return train followed by the texts of ``table``, and the notes on them.

    The texts have label -1, and group -1 where the table has no groups but train has. Texts that are also in reward, validation or test
    are left out.

    Raises:
        InputError: the table does not fit, or nothing is left of it.
    """
    names = reading.names if reading.names.group in table.columns else reading.names._replace(group=None)
    texts = text_columns(table, False, names, reading.strict)
    table = texts.table
    if texts.inputs.ndim != train.inputs.ndim or (texts.groups is not None and train.groups is None):
        require_same_columns(train, texts)
    if texts.groups is not None:
        groups: np.ndarray | None = numbers_of(table, "group", texts.groups, group_names)
    else:
        groups = None if train.groups is None else np.full(len(texts.inputs), -1)
    unlabelled = Split(texts.inputs, np.full(len(texts.inputs), -1), groups)
    held_out = in_held_out_splits(splits, unlabelled)
    if held_out.all():
        raise InputError(f"task {name!r}: every example of {table.path.name} is also in reward, validation or test; give it others")
    added = unlabelled.take(np.flatnonzero(~held_out))
    notes = [*texts.notes, f"{len(added):,} unlabelled training examples from {table.path.name}, in train with label -1"]
    if held_out.any():
        notes.append(f"{held_out.sum()} of {len(unlabelled)} unlabelled examples left out: they are also in test or validation or reward")
    if (label := reading.names.label or "label") in table.columns:
        notes.append(f"column {label} of {table.path.name} is not read")
    labelled = splits["train"]
    return (
        Split(
            np.concatenate([labelled.inputs, added.inputs]),
            np.concatenate([labelled.labels, added.labels]),
            None if groups is None else np.concatenate([labelled.groups, added.groups]),
        ),
        notes,
    )
