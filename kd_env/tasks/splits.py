"""Make the splits train, reward, validation and test from those that a source has, with a note on each thing that was changed.

- test: a labelled published test; else dev; else carved from train.
- validation: as given; else dev, where dev is not the test; else carved from train.
- reward: as given; else carved from train.

A carved split is a tenth of train, at least 64 and at most 2,000 examples, stratified by label and group, and always the same. Equal inputs
(texts in any case, spacing and Unicode form) stay in one split. If an input is in several given splits, the copy in test is kept, else the
one in validation, else the one in reward: training never sees what is measured, and a published test keeps its size.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.task import SPLITS, Split

SHARE, MIN_EXAMPLES, MAX_EXAMPLES = 0.1, 64, 2000
"""Size of a carved split: its share of train, and the smallest and largest number of examples."""

SMALL_VALIDATION = 500
"""With fewer validation examples a note says how uncertain a score is."""


def four_splits(
    name: str, available: Mapping[str, Split], sources: Mapping[str, str], class_names: Sequence[str] = ()
) -> tuple[dict[str, Split], list[str]]:
    """Apply the rule to ``available``: ``train`` and any of ``reward``, ``validation``, ``dev`` and ``test``.

    Args:
        name: of the task, for messages.
        sources: where each available split comes from, for the notes.
        class_names: of the task, for messages.

    Returns:
        The four splits, and the notes.

    Raises:
        InputError: nothing is left of a split, or train is too small to carve from.
    """
    splits, notes = _without_dev(available, sources)
    identities = {role: _identities(split) for role, split in splits.items()}
    notes += _drop_copies(name, splits, identities)
    notes += _contradiction_notes(splits["train"], identities["train"])
    missing = [role for role in SPLITS if role not in splits]
    if missing:
        carved = _carve(name, splits["train"], identities["train"], missing)
        notes.append(f"carved from train: {', '.join(f'{role} {len(carved[role]):,}' for role in missing)}; left: {len(carved['train']):,}")
        splits |= carved
    if len(lost := np.setdiff1d(available["train"].labels, splits["train"].labels)):
        label = repr(class_names[lost[0]]) if class_names else f"number {lost[0]}"
        raise InputError(f"task {name!r}: all training examples of class {label} are in the other splits; give more of that class")
    return splits, notes


def small_validation_notes(size: int) -> list[str]:
    """Return a note on what a score on a small validation split is worth, or nothing."""
    if size >= SMALL_VALIDATION:
        return []
    return [f"validation has {size} examples, so an accuracy on it has a standard error of up to {0.5 / size**0.5:.3f}"]


def in_held_out_splits(splits: Mapping[str, Split], split: Split) -> np.ndarray:
    """Return a bool array ``[N]``: whether each example of ``split`` is also in reward, validation or test of ``splits``."""
    held_out = set().union(*(_identities(splits[role]) for role in SPLITS[1:]))
    return np.array([identity in held_out for identity in _identities(split)])


def _without_dev(available: Mapping[str, Split], sources: Mapping[str, str]) -> tuple[dict[str, Split], list[str]]:
    """Use dev as test or as validation, whichever is missing, or leave it out."""
    splits = dict(available)
    if "dev" not in splits:
        return splits, []
    dev, role = splits.pop("dev"), "validation" if "test" in splits else "test"
    if role in splits:
        return splits, [f"{sources['dev']} is not used, since there are {sources['test']} and {sources[role]}"]
    splits[role] = dev
    return splits, [f"{role} is {sources['dev']}" + (", since there is no labelled test" if role == "test" else "")]


def _drop_copies(name: str, splits: dict[str, Split], identities: dict[str, list[bytes]]) -> list[str]:
    """Drop, in place, what is also in a split that comes before: test, then validation, reward and train. Return the notes."""
    notes = []
    for position, role in enumerate(reversed(SPLITS)):
        before = [other for other in SPLITS[::-1][:position] if other in splits]
        if role not in splits or not before:
            continue
        taken = set().union(*(identities[other] for other in before))
        keep = np.array([identity not in taken for identity in identities[role]])
        if not keep.any():
            raise InputError(f"task {name!r}: every example of {role} is also in {' or '.join(before)}; give it examples of its own")
        if not keep.all():
            notes.append(f"{(~keep).sum()} of {len(keep)} {role} examples left out: they are also in {' or '.join(before)}")
            splits[role] = splits[role].take(np.flatnonzero(keep))
            identities[role] = [identity for identity, kept in zip(identities[role], keep, strict=True) if kept]
    return notes


def _contradiction_notes(train: Split, identities: list[bytes]) -> list[str]:
    """Return a note on equal inputs with different labels, or nothing."""
    labels: dict[bytes, set[int]] = {}
    for identity, label in zip(identities, train.labels.tolist(), strict=True):
        labels.setdefault(identity, set()).add(label)
    count = sum(len(different) > 1 for different in labels.values())
    kind = "texts" if train.inputs.dtype == object else "images"
    return [f"{count:,} training {kind} occur several times, with different labels"] if count else []


def _carve(name: str, train: Split, identities: list[bytes], missing: list[str]) -> dict[str, Split]:
    """Divide ``train`` into what stays train and the ``missing`` splits."""
    size = min(max(round(SHARE * len(train)), MIN_EXAMPLES), MAX_EXAMPLES)
    if len(train) < (len(missing) + 1) * MIN_EXAMPLES:
        raise InputError(
            f"task {name!r}: {len(train)} training examples are too few to carve {', '.join(missing)} from; "
            f"give at least {(len(missing) + 1) * MIN_EXAMPLES}, or files of these names"
        )
    number: dict[bytes, int] = {}
    unit = np.array([number.setdefault(identity, len(number)) for identity in identities])  # [N], equal inputs share a unit
    _, first, counts = np.unique(unit, return_index=True, return_counts=True)
    destination = np.zeros(len(first), dtype=np.int64)  # of each unit: 0 for train, m + 1 for the m-th missing split
    candidates = iter(_stratified(train.take(first)))
    for m in range(len(missing)):
        room = size
        while room:
            candidate = next(candidates, None)
            if candidate is None:
                kind = "texts" if train.inputs.dtype == object else "images"
                raise InputError(f"task {name!r}: too few different training {kind} to carve {', '.join(missing)} from; give more")
            if counts[candidate] <= room:
                destination[candidate] = m + 1
                room -= counts[candidate]
    return {role: train.take(np.flatnonzero(destination[unit] == m)) for m, role in enumerate(["train", *missing])}


def _stratified(split: Split) -> np.ndarray:
    """Return a fixed shuffle of the rows such that every prefix holds the labels of each group in proportion."""
    groups = np.zeros_like(split.labels) if split.groups is None else split.groups
    _, stratum = np.unique(np.stack([split.labels, groups]), axis=1, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(split))
    by_stratum = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum)
    rank = np.arange(len(split)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = (rank + 0.5) / np.repeat(sizes, sizes)  # in (0, 1), evenly spaced within a stratum
    tie_breaker = np.empty(len(split), dtype=np.int64)
    tie_breaker[shuffled] = np.arange(len(split))
    return by_stratum[np.lexsort((tie_breaker[by_stratum], position))]


def _identities(split: Split) -> list[bytes]:
    """Return a key for each example; equal inputs have equal keys."""
    if split.inputs.dtype != object:
        return [hashlib.sha256(row.tobytes()).digest() for row in split.inputs]
    rows = split.inputs[:, None] if split.inputs.ndim == 1 else split.inputs
    return [text_identity(row) for row in rows]


def text_identity(texts: Iterable[str]) -> bytes:
    """Return a key of a text or a pair. Texts that differ in case, spacing and Unicode form (NFC) alone have the same key."""
    return "\0".join(" ".join(unicodedata.normalize("NFC", str(text).lower()).split()) for text in texts).encode()
