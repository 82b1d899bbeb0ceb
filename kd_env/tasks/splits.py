"""The split rule. In: the splits a source has. Out: train, reward, validation and test, and a note on whatever was not just taken.

- test: a labelled published test; else dev; else carved from train.
- validation: as given; else dev, where dev is not the test; else carved from train.
- reward: as given; else carved from train.

Carved is a tenth of train, at least 64 and at most 2,000 examples, stratified by label and group, always the same ones. Equal inputs
(texts in any case and spacing) stay on one side. Of an input in two given splits the copy in test stays, else that in validation, else that
in reward: training never sees what is measured, and a published test keeps its size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.task import SPLITS, Split

SHARE, LEAST, MOST = 0.1, 64, 2000


def four_splits(name: str, given: Mapping[str, Split], sources: Mapping[str, str]) -> tuple[dict[str, Split], list[str]]:
    """Apply the rule to ``given`` (``train`` and any of ``reward``, ``validation``, ``dev``, ``test``).

    Args:
        name: of the task, for messages.
        sources: where each given split comes from, for the notes.

    Raises:
        InputError: nothing is left of a split, or train is too small to carve from.
    """
    splits, notes = dict(given), []
    if "dev" in splits:
        role = "test" if "test" not in splits else "validation"
        if role in splits:
            notes.append(f"{sources['dev']} is not used, since there are {sources['test']} and {sources[role]}")
            del splits["dev"]
        else:
            splits[role] = splits.pop("dev")
            notes.append(f"{role} is {sources['dev']}" + (", since there is no labelled test" if role == "test" else ""))
    identities = {role: _identities(split) for role, split in splits.items()}
    for at, role in enumerate(reversed(SPLITS)):
        above = [other for other in SPLITS[::-1][:at] if other in splits]
        if role in splits and above:
            taken = set().union(*(identities[other] for other in above))
            keep = np.array([one not in taken for one in identities[role]])
            if not keep.any():
                raise InputError(f"task {name!r}: every example of {role} is also in {' or '.join(above)}; give it examples of its own")
            if not keep.all():
                notes.append(f"{(~keep).sum()} of {len(keep)} {role} examples left out: they are also in {' or '.join(above)}")
                splits[role] = splits[role].take(np.flatnonzero(keep))
                identities[role] = [one for one, kept in zip(identities[role], keep, strict=True) if kept]
    missing = [role for role in SPLITS if role not in splits]
    if missing:
        carved = _carve(name, splits["train"], identities["train"], missing)
        notes.append(f"carved from train: {', '.join(f'{role} {len(carved[role]):,}' for role in missing)}; left: {len(carved['train']):,}")
        splits |= carved
    if len(lost := np.setdiff1d(given["train"].labels, splits["train"].labels)):
        raise InputError(
            f"task {name!r}: of class number {lost[0]} no training example is left beside those of other splits; give more of it"
        )
    return splits, notes


def measured(splits: Mapping[str, Split], split: Split) -> np.ndarray:
    """Which examples of ``split`` are also in reward, validation or test, ``[N]``."""
    taken = set().union(*(_identities(splits[role]) for role in SPLITS[1:]))
    return np.array([one in taken for one in _identities(split)])


def _carve(name: str, train: Split, identities: list[bytes], missing: list[str]) -> dict[str, Split]:
    size = min(max(round(SHARE * len(train)), LEAST), MOST)
    if len(train) < (len(missing) + 1) * LEAST:
        raise InputError(
            f"task {name!r}: {len(train)} training examples are too few to carve {', '.join(missing)} from; "
            f"give at least {(len(missing) + 1) * LEAST}, or files of these names"
        )
    number: dict[bytes, int] = {}
    unit = np.array([number.setdefault(one, len(number)) for one in identities])  # [N], equal inputs share a unit
    _, first, counts = np.unique(unit, return_index=True, return_counts=True)
    side = np.zeros(len(first), dtype=np.int64)  # of each unit: 0 train, m + 1 the m-th of missing
    sequence = iter(_stratified(train.take(first)))
    for m in range(len(missing)):
        left = size
        while left:
            chosen = next(sequence, None)
            if chosen is None:
                raise InputError(f"task {name!r}: too few different training texts to carve {', '.join(missing)} from; give more")
            if counts[chosen] <= left:
                side[chosen] = m + 1
                left -= counts[chosen]
    carved = {role: train.take(np.flatnonzero(side[unit] == m)) for m, role in enumerate(["train", *missing])}
    return carved


def _stratified(split: Split) -> np.ndarray:
    """A fixed shuffle of the rows of which every beginning holds each label of each group in proportion."""
    groups = np.zeros_like(split.labels) if split.groups is None else split.groups
    _, stratum = np.unique(np.stack([split.labels, groups]), axis=1, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(split))
    by_stratum = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum)
    rank = np.arange(len(split)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = (rank + 0.5) / np.repeat(sizes, sizes)  # in (0, 1), evenly spaced within a stratum
    tie = np.empty(len(split), dtype=np.int64)
    tie[shuffled] = np.arange(len(split))
    return by_stratum[np.lexsort((tie[by_stratum], position))]


def _identities(split: Split) -> list[bytes]:
    if split.inputs.dtype != object:
        return [hashlib.sha256(row.tobytes()).digest() for row in split.inputs]
    rows = split.inputs[:, None] if split.inputs.ndim == 1 else split.inputs
    return ["\0".join(" ".join(text.lower().split()) for text in row).encode() for row in rows]
