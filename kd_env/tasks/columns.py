"""Check the columns of a file of texts: ``sentence`` or ``sentence1, sentence2``, ``label``, and perhaps ``group`` or ``domain``.

Columns of other names can be named, see :class:`ColumnNames`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.tables import Table

COLUMNS = ("sentence", "sentence1", "sentence2", "label", "group", "domain")
LIKELY = {
    "text": ("text", "review", "sentence", "content", "comment", "tweet", "body", "message", "question", "premise", "document", "title"),
    "label": ("label", "labels", "sentiment", "class", "target", "category", "rating", "stars", "polarity", "intent", "topic", "score"),
}
"""Column names of published sets, from which an error message suggests."""


class ColumnNames(NamedTuple):
    """The columns that the user named; ``None`` stands for the usual names.

    Attributes:
        text: the text, or the first text of a pair.
        pair: the second text of a pair.
        label: the class.
        group: the group.
    """

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    group: str | None = None


USUAL = ColumnNames()


class TextColumns(NamedTuple):
    """The columns of one file.

    Attributes:
        table: the file, without the rows that are left out.
        inputs: texts, an object array ``[N]``, or ``[N, 2]`` of pairs.
        labels: the label of each text as written; empty where labels are not read.
        groups: the group of each text, or ``None`` where there is no such column.
        used: the names of the columns that are read.
        notes: on the rows that are left out, and on what the file's reader assumed.
    """

    table: Table
    inputs: np.ndarray
    labels: list[str]
    groups: list[str] | None
    used: tuple[str, ...]
    notes: tuple[str, ...] = ()


def text_columns(table: Table, labelled: bool = True, names: ColumnNames = USUAL, strict: bool = True) -> TextColumns:
    """Take the columns of a text task out of ``table``.

    Args:
        labelled: read labels.
        names: columns that are not called as usual.
        strict: refuse a row without a text or a label, instead of leaving it out.

    Raises:
        InputError: a column is missing, misspelt or superfluous, or a cell cannot be used.
    """
    texts = text_names(table, names, labelled)
    label, group = label_name(names), group_name(table, names)
    if labelled and label not in table.columns:
        raise InputError(f"{table.path}: no column {label}{_label_hint(table, names, texts)}")
    used = [*texts, *([label] if labelled else []), *([group] if group is not None else [])]
    size, (table, notes) = len(table.lines), _without_empty(table, used, strict)
    if not table.lines:
        raise InputError(f"{table.path}: all {size} rows lack {' or '.join(used)}; fill them in, or name other columns")
    sentences = [_cells(table, name, str) for name in texts]
    inputs = np.array(sentences[0], dtype=object) if len(sentences) == 1 else np.array(sentences, dtype=object).T
    labels = _cells(table, label, str, int, float, bool) if labelled else []
    groups = None if group is None else [cell.strip() for cell in _cells(table, group, str, int)]
    return TextColumns(table, inputs, labels, groups, tuple(used), (*table.notes, *notes))


def label_name(names: ColumnNames) -> str:
    """Return the name of the column of labels."""
    return names.label or "label"


def group_name(table: Table, names: ColumnNames) -> str | None:
    """Return the name of the column of groups, or ``None`` where there is none.

    Raises:
        InputError: the user named a column that is not there, or there is a group and a domain.
    """
    if names.group is not None:
        table.require([names.group])
        return names.group
    if "group" in table.columns and "domain" in table.columns:
        raise InputError(f"{table.path}: both group and domain; they mean the same, keep one, or name one with --group")
    return next((name for name in ("group", "domain") if name in table.columns), None)


def text_names(table: Table, names: ColumnNames, labelled: bool = True) -> list[str]:
    """Return the names of the columns of texts, one or two.

    Raises:
        InputError: there is none, only a part of a pair, or a column whose name is nearly one of the usual names.
    """
    if names.text is not None:
        texts = [names.text, *([names.pair] if names.pair is not None else [])]
        table.require(texts)
        return texts
    if names.pair is not None:
        raise InputError(f"{table.path}: pair={names.pair!r} names the second text; name the first one too, with --text")
    columns = table.columns
    single, pair = "sentence" in columns, {"sentence1", "sentence2"} & set(columns)
    if single == bool(pair):
        shown = ", ".join(name or "''" for name in columns)[:200]
        expected = "expected sentence, or sentence1 and sentence2, in the first line"
        raise InputError(f"{table.path}: columns {shown}; {expected}{_suggestion(table, names, labelled)}")
    if len(pair) == 1:
        raise InputError(f"{table.path}: column {pair.pop()} alone; a pair is sentence1 and sentence2, a single text is sentence")
    if names == USUAL and not (labelled and "label" not in columns):
        _require_no_misspelling(table)
    return ["sentence"] if single else ["sentence1", "sentence2"]


def has_labels(table: Table, names: ColumnNames, train: Table | None = None) -> bool:
    """Return whether a row of the table has a label; the column may be missing, empty or, as on the hub, -1 throughout.

    Args:
        train: the training file; where -1 is among its labels, it is a label.
    """
    labels = _labels_in(table, names)
    return bool(labels - {"-1"}) or ("-1" in labels and train is not None and "-1" in _labels_in(train, names))


def _labels_in(table: Table, names: ColumnNames) -> set[str]:
    """Return the different labels of a file, without the spaces around them; none where the column is missing."""
    return {str(cell).strip() for cell in table.columns.get(label_name(names), []) if not _is_missing(cell)}


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


def unused_columns(tables: Iterable[Table], used: Iterable[str] = COLUMNS) -> list[str]:
    """Return a note on the columns that are not read, or nothing."""
    read = set(used)
    names = dict.fromkeys(name or "the one without a name" for table in tables for name in table.columns if name not in read)
    return [f"columns not used: {', '.join(names)}"] if names else []


def short_repr(value: object) -> str:
    """Return the ``repr`` of a value for a message, of at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(table: Table, names: ColumnNames, labelled: bool) -> str:
    """Return how to name the columns, with those of the table that are most likely meant."""
    text = _likely(table.columns, "text") or next((name for name in table.columns if name and name not in COLUMNS), "COLUMN")
    options = [f"--text {text!r}" if " " in text else f"--text {text}"]
    if labelled and names.label is None and "label" not in table.columns:
        label = _likely(table.columns, "label") or "COLUMN"
        options.append(f"--label {label!r}" if " " in label else f"--label {label}")
    return f"; name your own, as {' '.join(options)}, or rename them"


def _likely(columns: Mapping[str, Any], role: str) -> str | None:
    words = {name: [name.lower(), *re.split(r"[^a-z0-9]+", name.lower())] for name in columns}
    return next((name for likely in LIKELY[role] for name in columns if likely in words[name]), None)


def _label_hint(table: Table, names: ColumnNames, texts: list[str]) -> str:
    if names.label is not None:
        return f", found {', '.join(table.columns)[:200]}"
    nearest = difflib.get_close_matches("label", [name.lower() for name in table.columns], n=1)
    if nearest:
        return f"; rename {nearest[0]!r}"
    likely = _likely({name: None for name in table.columns if name not in texts}, "label")
    return f", name it, as --label {likely or 'COLUMN'}, or add it"


def _require_no_misspelling(table: Table) -> None:
    for name in table.columns:
        nearest = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.85)
        if nearest and name not in COLUMNS:
            raise InputError(f"{table.path}: unknown column {name!r}; did you mean {nearest[0]!r}? If not, rename it")


def _without_empty(table: Table, used: list[str], strict: bool) -> tuple[Table, list[str]]:
    """Return the rows that have a value in each column of ``used``, and a note on the others."""
    empty: dict[int, str] = {}
    for name in used:
        for row, value in enumerate(table.columns[name]):
            if _is_missing(value):
                empty.setdefault(row, name)
    if not empty:
        return table, []
    first = min(empty)
    if strict:
        raise InputError(f"{table.place(first)}: {empty[first]} is empty; fill it in or delete that line")
    kept = [row for row in range(len(table.lines)) if row not in empty]
    columns = " or ".join(dict.fromkeys(empty.values()))
    note = (
        f"{len(empty):,} of {len(table.lines):,} rows of {table.path.name} left out: they have no {columns} "
        f"(the first is {table.unit} {table.lines[first]}); strict=true refuses them"
    )
    return table.take(kept), [note]


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)


def _cells(table: Table, column: str, *types: type) -> list[str]:
    """Return the cells of a column as text; none may be of another type, or not Unicode."""
    cells = []
    for row, value in enumerate(table.columns[column]):
        if type(value) not in types:
            expected = "a text" if int not in types else "a text or a whole number"
            raise InputError(f"{table.place(row)}: {column} is {short_repr(value)}, expected {expected}")
        cell = str(value)
        if (not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell)) or "\0" in cell:
            raise InputError(f"{table.place(row)}: {column} holds a NUL character or half of a surrogate pair; delete it")
        cells.append(cell)
    return cells
