"""Turn the labels and groups of text files into numbers. Labels are integers or names, groups are names; the training file defines both.

1.0 and 1 are one integer, and so are 0.0 and 0; True and true are one name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.columns import TextColumns, short_repr
from kd_env.tasks.tables import Table


def class_names_of(train: TextColumns, ignore_case: bool = False) -> list[str]:
    """Return the classes of the training file: integers in numeric order, names in alphabetic order.

    Args:
        ignore_case: names that differ in case and spacing alone are one class.

    Raises:
        InputError: a label cannot be used, or there is one class, or there are too many for the number of examples.
    """
    labels = set(normalised_labels(train, None, ignore_case))
    if len(labels) == 1:
        raise InputError(f"{train.table.path}: every label is {short_repr(labels.pop())}; a classifier needs at least two classes")
    if 2 * len(labels) > max(len(train.labels), 8):
        raise InputError(
            f"{train.table.path}: {len(labels)} labels in {len(train.labels)} examples; a label is a class, not a number or an id"
        )
    return sorted(labels, key=int) if _is_integer(train.labels[0]) else sorted(labels)


def normalised_labels(file: TextColumns, class_names: Sequence[str] | None, ignore_case: bool = False) -> list[str]:
    """Return the labels of a file, each integer in its shortest spelling.

    Either all labels are integers or none is: as ``class_names`` are or, without them, as the first label of the file is.

    Raises:
        InputError: a label is a fraction, of the other kind, or a number of more than 9 digits.
    """
    integers = _is_integer(file.labels[0] if class_names is None else class_names[0])
    normalised: dict[str, str] = {}  # by label: most of them occur many times
    for row, label in enumerate(file.labels):
        if label not in normalised:
            normalised[label] = _normalised(file.table.place(row), label.strip(), integers, ignore_case)
    return [normalised[label] for label in file.labels]


def spelling_notes(names: Sequence[str], of_groups: bool = False) -> list[str]:
    """Return a note on the classes or groups whose names differ in case, spacing or the form of their characters alone, or nothing."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(_folded(name), []).append(name)
    alike = [", ".join(names) for names in spellings.values() if len(names) > 1]
    if not alike:
        return []
    listed = "; ".join(alike[:5])[:300]
    kind, remedy = ("groups", "correct them in the files") if of_groups else ("classes", "ignore_case=true makes one class of them")
    return [f"{kind} that differ in case, spacing or Unicode form alone: {listed}; {remedy}"]


def numbers_of(table: Table, column: str, names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Return the position of each name in ``known``, int64 ``[N]``.

    Args:
        table: the file that the names are from, for the message.
        column: what the names are, for the message.

    Raises:
        InputError: a name is not in ``known``.
    """
    number = {name: position for position, name in enumerate(known)}
    for row, name in enumerate(names):
        if name not in number:
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise InputError(f"{table.place(row)}: {column} {short_repr(name)} is not among those of the training file ({shown[:200]})")
    return np.array([number[name] for name in names], dtype=np.int64)


def _normalised(place: str, label: str, integers: bool, ignore_case: bool) -> str:
    """Return a label as :func:`normalised_labels` does; ``place`` names its file and line in errors."""
    whole = label.partition(".")[0]
    if _is_integer(label) and len(whole) > 9:
        raise InputError(f"{place}: label {short_repr(label)} is too large for a class number; give at most 9 digits")
    if _is_fraction(label):
        raise InputError(f"{place}: label {short_repr(label)} is not a class; expected a whole number or a name (no regression)")
    if _is_integer(label) != integers:
        kind = "whole numbers" if integers else "names"
        raise InputError(f"{place}: label {short_repr(label)}, where the labels before it are {kind}; use one kind")
    if integers:
        return str(int(whole))
    if ignore_case:
        return _folded(label)
    return label.lower() if label.lower() in ("true", "false") else label


def _folded(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def _is_integer(label: str) -> bool:
    return re.fullmatch(r"\s*[+-]?[0-9]+(\.0*)?\s*", label) is not None


def _is_fraction(label: str) -> bool:
    number = re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+|inf|nan)(e[+-]?[0-9]+)?\s*", label, re.IGNORECASE)
    return number is not None and not _is_integer(label)
