"""Check the columns of a file of texts: ``sentence`` or ``sentence1, sentence2``, ``label``, and perhaps ``group`` or ``domain``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.tables import Table

COLUMNS = ("sentence", "sentence1", "sentence2", "label", "group", "domain")


class TextColumns(NamedTuple):
    """The columns of one file.

    Attributes:
        table: the file.
        inputs: texts, an object array ``[N]``, or ``[N, 2]`` of pairs.
        labels: the label of each text as written; empty where labels are not read.
        groups: the group of each text, or ``None`` where there is no such column.
    """

    table: Table
    inputs: np.ndarray
    labels: list[str]
    groups: list[str] | None


def text_columns(table: Table, labelled: bool = True) -> TextColumns:
    """Take the columns of a text task out of ``table``.

    Args:
        labelled: read labels.

    Raises:
        InputError: a column is missing, misspelt or superfluous, or a cell cannot be used.
    """
    _check_names(table, labelled)
    columns = table.columns
    sentences = [_cells(table, name, str) for name in ("sentence", "sentence1", "sentence2") if name in columns]
    inputs = np.array(sentences[0], dtype=object) if len(sentences) == 1 else np.array(sentences, dtype=object).T
    group = next((name for name in ("group", "domain") if name in columns), None)
    labels = _cells(table, "label", str, int) if labelled else []
    return TextColumns(table, inputs, labels, None if group is None else _cells(table, group, str, int))


def require_same_columns(train: TextColumns, other: TextColumns) -> None:
    """Check that ``other`` has pairs and groups exactly where ``train`` has.

    Raises:
        InputError: it does not; the message names both files.
    """
    if train.inputs.ndim != other.inputs.ndim:
        kinds = [f"{file.table.path.name} holds {'pairs' if file.inputs.ndim == 2 else 'single texts'}" for file in (train, other)]
        raise InputError(f"{other.table.path}: {' and '.join(kinds)}; give all files of a task the same columns")
    if (train.groups is None) != (other.groups is None):
        without, with_groups = (train, other) if train.groups is None else (other, train)
        raise InputError(f"{without.table.path}: no column group, which {with_groups.table.path.name} has; give it to both or to neither")


def unused_columns(tables: Iterable[Table]) -> list[str]:
    """Return a note on the columns that are not read, or nothing."""
    names = dict.fromkeys(name for table in tables for name in table.columns if name not in COLUMNS)
    return [f"columns not used: {', '.join(names)}"] if names else []


def short_repr(value: object) -> str:
    """Return the ``repr`` of a value for a message, of at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_names(table: Table, labelled: bool) -> None:
    columns = table.columns
    single, pair = "sentence" in columns, {"sentence1", "sentence2"} & set(columns)
    if single == bool(pair):
        names = ", ".join(columns)
        raise InputError(f"{table.path}: columns {names[:200]}; expected sentence, or sentence1 and sentence2, in the first line")
    if len(pair) == 1:
        raise InputError(f"{table.path}: column {pair.pop()} alone; a pair is sentence1 and sentence2, a single text is sentence")
    if labelled and "label" not in columns:
        nearest = difflib.get_close_matches("label", [name.lower() for name in columns], n=1)
        raise InputError(f"{table.path}: no column label{f'; rename {nearest[0]!r}' if nearest else ', add it'}")
    if "group" in columns and "domain" in columns:
        raise InputError(f"{table.path}: both group and domain; they mean the same, keep one")
    for name in columns:
        nearest = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.85)
        if nearest and name not in COLUMNS:
            raise InputError(f"{table.path}: unknown column {name!r}; did you mean {nearest[0]!r}? If not, rename it")


def _cells(table: Table, column: str, *types: type) -> list[str]:
    """Return the cells of a column as text; none may be empty, of another JSON type, or not Unicode."""
    cells = []
    for row, value in enumerate(table.columns[column]):
        if type(value) not in types:
            expected = "a text" if int not in types else "a text or a whole number"
            raise InputError(f"{table.place(row)}: {column} is {short_repr(value)}, expected {expected}")
        cell = str(value)
        if not cell.strip():
            raise InputError(f"{table.place(row)}: {column} is empty; fill it in or delete that line")
        if (not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell)) or "\0" in cell:
            raise InputError(f"{table.place(row)}: {column} holds a NUL character or half of a surrogate pair; delete it")
        cells.append(cell)
    return cells
