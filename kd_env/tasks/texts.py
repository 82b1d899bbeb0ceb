"""From columns to a text task. In: tables with ``sentence`` or ``sentence1, sentence2``, ``label`` and perhaps ``group``. Out: a ``Task``.

Labels are integers or names, groups are names; the training file says which there are. A table of unlabelled texts is added to train once
everything else is settled, see :func:`_transferred`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.splits import four_splits, measured
from kd_env.tasks.tables import Table
from kd_env.tasks.task import Defaults, Split, Task
from kd_env.tasks.wordpiece import WordPiece

COLUMNS = ("sentence", "sentence1", "sentence2", "label", "group", "domain")


class Texts(NamedTuple):
    """Texts of one file; ``labels`` is empty where they are not read."""

    table: Table
    inputs: np.ndarray  # [N], or [N, 2] for pairs, of str
    labels: list[str]
    groups: list[str] | None


def text_task(
    name: str,
    files: Mapping[str, Table],
    metric: str,
    class_names: Sequence[str] | None = None,
    notes: Iterable[str] = (),
    unlabelled: Table | None = None,
) -> Task:
    """Make the task; what each file becomes is said in :mod:`kd_env.tasks.splits`.

    Args:
        files: by ``train``, ``reward``, ``validation``, ``dev``, ``test``; at least ``train``.
        class_names: in the order of their numbers. Default: the labels of ``train``, integers in their order, names in the alphabet's.
        unlabelled: texts for the transfer alone, with ``group`` or without.

    Raises:
        InputError: a column is missing, a cell cannot be used, or the files do not fit together; it names file and line.
    """
    texts = {role: _texts(table) for role, table in files.items()}
    train = texts["train"]
    for other in texts.values():
        _require_alike(train, other)
    if class_names is None:
        class_names = _class_names(train)
        texts = {role: one._replace(labels=_checked_labels(one, class_names)) for role, one in texts.items()}
    group_names = sorted(set(train.groups or ()))
    given = {role: _split(one, class_names, group_names) for role, one in texts.items()}
    splits, more = four_splits(name, given, {role: one.table.path.name for role, one in texts.items()})
    if unlabelled is not None:
        splits["train"], said = _transferred(name, unlabelled, train, splits, group_names)
        more += said
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
        tokenizer=WordPiece(splits["train"].inputs),
        notes=(*notes, *_unused(files.values() if unlabelled is None else [*files.values(), unlabelled]), *more),
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


def _transferred(name: str, table: Table, train: Texts, splits: Mapping[str, Split], group_names: Sequence[str]) -> tuple[Split, list[str]]:
    """Train with the texts of ``table`` after it, label -1, and what to say of it; group -1 where the table has none.

    Texts that are also in reward, validation or test are left out, as they are of train.

    Raises:
        InputError: the table does not fit, or nothing is left of it.
    """
    texts = _texts(table, labelled=False)
    if texts.inputs.ndim != train.inputs.ndim or (texts.groups is not None and train.groups is None):
        _require_alike(train, texts)
    if texts.groups is not None:
        groups: np.ndarray | None = _numbers(table, "group", texts.groups, group_names)
    else:
        groups = None if train.groups is None else np.full(len(texts.inputs), -1)
    more = Split(texts.inputs, np.full(len(texts.inputs), -1), groups)
    seen = measured(splits, more)
    if seen.all():
        raise InputError(f"task {name!r}: every example of {table.path.name} is also in reward, validation or test; give it others")
    left = more.take(np.flatnonzero(~seen))
    notes = [f"{len(left):,} unlabelled training examples from {table.path.name}, in train with label -1"]
    if seen.any():
        notes.append(f"{seen.sum()} of {len(more)} unlabelled examples left out: they are also in test or validation or reward")
    if "label" in table.columns:
        notes.append(f"column label of {table.path.name} is not read")
    both = None if groups is None else np.concatenate([splits["train"].groups, left.groups])
    own = splits["train"]
    return Split(np.concatenate([own.inputs, left.inputs]), np.concatenate([own.labels, left.labels]), both), notes


def _texts(table: Table, labelled: bool = True) -> Texts:
    columns = table.columns
    single, pair = "sentence" in columns, {"sentence1", "sentence2"} & set(columns)
    if single == bool(pair):
        found = ", ".join(columns)
        raise InputError(f"{table.path}: columns {found[:200]}; expected sentence, or sentence1 and sentence2, in the first line")
    if len(pair) == 1:
        raise InputError(f"{table.path}: column {pair.pop()} alone; a pair is sentence1 and sentence2, a single text is sentence")
    if labelled and "label" not in columns:
        near = difflib.get_close_matches("label", [name.lower() for name in columns], n=1)
        raise InputError(f"{table.path}: no column label{f'; rename {near[0]!r}' if near else ', add it'}")
    if "group" in columns and "domain" in columns:
        raise InputError(f"{table.path}: both group and domain; they mean the same, keep one")
    for name in columns:
        near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.85)
        if near and name not in COLUMNS:
            raise InputError(f"{table.path}: unknown column {name!r}; did you mean {near[0]!r}? If not, rename it")
    sentences = [_cells(table, name, str) for name in ("sentence", "sentence1", "sentence2") if name in columns]
    inputs = np.array(sentences, dtype=object).T if pair else np.array(sentences[0], dtype=object)
    group = next((name for name in ("group", "domain") if name in columns), None)
    labels = _cells(table, "label", str, int) if labelled else []
    return Texts(table, inputs, labels, None if group is None else _cells(table, group, str, int))


def _cells(table: Table, column: str, *kinds: type) -> list[str]:
    """The cells of a column as text; none may be empty, of another JSON type, or not Unicode."""
    cells = []
    for row, value in enumerate(table.columns[column]):
        if type(value) not in kinds:
            wanted = "a text" if int not in kinds else "a text or a whole number"
            raise InputError(f"{table.place(row)}: {column} is {_shown(value)}, expected {wanted}")
        cell = str(value)
        if not cell.strip():
            raise InputError(f"{table.place(row)}: {column} is empty; fill it in or delete that line")
        if (not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell)) or "\0" in cell:
            raise InputError(f"{table.place(row)}: {column} holds a NUL character or half of a surrogate pair; delete it")
        cells.append(cell)
    return cells


def _require_alike(train: Texts, other: Texts) -> None:
    if train.inputs.ndim != other.inputs.ndim:
        kinds = [f"{one.table.path.name} holds {'pairs' if one.inputs.ndim == 2 else 'single texts'}" for one in (train, other)]
        raise InputError(f"{other.table.path}: {' and '.join(kinds)}; give all files of a task the same columns")
    if (train.groups is None) != (other.groups is None):
        lacking, having = (train, other) if train.groups is None else (other, train)
        raise InputError(f"{lacking.table.path}: no column group, which {having.table.path.name} has; give it to both or to neither")


def _class_names(train: Texts) -> list[str]:
    labels = set(_checked_labels(train, None))
    if len(labels) == 1:
        raise InputError(f"{train.table.path}: every label is {_shown(labels.pop())}; a classifier needs at least two classes")
    if 2 * len(labels) > max(len(train.labels), 8):
        raise InputError(
            f"{train.table.path}: {len(labels)} labels in {len(train.labels)} examples; a label is a class, not a number or an id"
        )
    return sorted(labels, key=int) if _is_integer(train.labels[0]) else sorted(labels)


def _checked_labels(texts: Texts, class_names: Sequence[str] | None) -> list[str]:
    """The labels of a file, each integer in one spelling; all are integers or none is, as those of the training file."""
    integers = _is_integer(texts.labels[0] if class_names is None else class_names[0])
    labels = []
    for row, label in enumerate(map(str.strip, texts.labels)):
        if _is_integer(label) and len(label) > 9:
            raise InputError(f"{texts.table.place(row)}: label {_shown(label)} is too large for a class number; give at most 9 digits")
        if _is_fraction(label):
            raise InputError(
                f"{texts.table.place(row)}: label {_shown(label)} is no class; expected a whole number or a name (no regression)"
            )
        if _is_integer(label) != integers:
            kinds = "whole numbers" if integers else "names"
            raise InputError(f"{texts.table.place(row)}: label {_shown(label)}, where the labels before it are {kinds}; use one kind")
        labels.append(str(int(label)) if integers else label)
    return labels


def _is_integer(label: str) -> bool:
    return re.fullmatch(r"\s*[+-]?[0-9]+\s*", label) is not None


def _is_fraction(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return not _is_integer(label)


def _split(texts: Texts, class_names: Sequence[str], group_names: Sequence[str]) -> Split:
    labels = _numbers(texts.table, "label", texts.labels, class_names)
    return Split(texts.inputs, labels, None if texts.groups is None else _numbers(texts.table, "group", texts.groups, group_names))


def _numbers(table: Table, what: str, names: list[str], known: Sequence[str]) -> np.ndarray:
    number = {name: at for at, name in enumerate(known)}
    for row, name in enumerate(names):
        if name not in number:
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise InputError(f"{table.place(row)}: {what} {_shown(name)} is not among those of the training file ({shown[:200]})")
    return np.array([number[name] for name in names], dtype=np.int64)


def _unused(files: Iterable[Table]) -> list[str]:
    names = dict.fromkeys(name for table in files for name in table.columns if name not in COLUMNS)
    return [f"columns not used: {', '.join(names)}"] if names else []


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
