"""Average the weights of the teachers over seeds. In: traces of one policy. Out: a `SelectionMap`, by group of examples, teacher and time.

A map holds the same means as :func:`kd_env.analysis.traces.selection_by_group`. It is computed from arrays, so a report can read hundreds
of traces.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow
import pyarrow.parquet

from kd_env import spec
from kd_env.errors import InputError

COLUMNS = ("update", "slot", "group", "teacher", "weight")


class SelectionMap(NamedTuple):
    """Mean weight of each teacher.

    Attributes:
        weights: [G, K, bins]; nan where a group has no decision.
        groups: names of the G groups.
        teachers: names of the K teachers.
        updates: first update of each bin, and the update after the last bin [bins + 1].
        seeds: number of traces.
    """

    weights: npt.NDArray[np.float64]
    groups: tuple[str, ...]
    teachers: tuple[str, ...]
    updates: npt.NDArray[np.float64]
    seeds: int

    @property
    def teaches(self) -> bool:
        """Whether any teacher has weight in any decision."""
        return bool(np.nansum(self.weights) > 0)


def selection_map(trace: pd.DataFrame, bins: int = 16) -> SelectionMap:
    """Return the map of one trace, with at most `bins` bins of equal width.

    Raises:
        InputError: the trace has no decisions, or ``bins`` is below 1.
    """
    columns = [trace[name].to_numpy() for name in COLUMNS]
    return _map(columns, trace.attrs["group_names"], trace.attrs["teacher_names"], bins)


def read_selection_map(path: Path | str, bins: int = 16) -> SelectionMap:
    """Return the map of a trace's file.

    Raises:
        InputError: the file is not a trace, or it has no decisions.
    """
    try:
        table = pyarrow.parquet.read_table(path, columns=list(COLUMNS), use_threads=False, page_checksum_verification=True)
        metadata = table.schema.metadata or {}
        groups, teachers = (json.loads(metadata[name]) for name in (b"group_names", b"teacher_names"))
        columns = [table.column(name).to_numpy() for name in COLUMNS]
        if not all(isinstance(names, list) for names in (groups, teachers)):
            raise TypeError("its names are not lists")
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a trace that can be read ({error}); run the trial again, or delete the file") from error
    return _map(columns, groups, teachers, bins)


def mean_over_seeds(maps: Sequence[SelectionMap]) -> SelectionMap:
    """Return the mean of the maps of a policy's seeds, over the groups that any of them has.

    Raises:
        InputError: there are none, or they differ in their teachers or their bins.
    """
    if not maps:
        raise InputError("no selection maps or traces; give those of at least one seed")
    first = maps[0]
    if any(each.teachers != first.teachers or not np.array_equal(each.updates, first.updates) for each in maps):
        raise InputError("selection maps of different teachers or bins have no mean; give the traces of one policy and one setting")
    groups = tuple(dict.fromkeys(group for each in maps for group in each.groups))
    stacked = np.full((len(maps), len(groups), *first.weights.shape[1:]), np.nan)  # [S, G, K, bins]
    for weights, each in zip(stacked, maps, strict=True):
        weights[[groups.index(group) for group in each.groups]] = each.weights
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0.0).sum(0)
    mean = np.divide(total, known.sum(0), out=np.full_like(total, np.nan), where=known.any(0))
    return SelectionMap(mean, groups, first.teachers, first.updates, sum(each.seeds for each in maps))


def _map(columns: Sequence[npt.NDArray[np.generic]], group_names: list[str], teacher_names: list[str], bins: int) -> SelectionMap:
    if not len(columns[0]):
        raise InputError("an empty trace has no decisions to bin; run the trial for at least one update")
    spec.numbers("selection map", least=1, whole=True, bins=bins)
    update, slot, group, teacher = (column.astype(np.int32) for column in columns[:4])
    weight = columns[4].astype(np.float64)
    update -= (first := int(update.min()))
    span, slots = int(update.max()) + 1, int(slot.max()) + 1
    bins = min(bins, span)
    present = np.flatnonzero(np.bincount(group + 1)) - 1
    present = np.concatenate([present[present >= 0], present[present < 0]])  # examples of unknown group come last
    row = np.zeros(int(present.max()) + 2, dtype=np.int32)
    row[present] = np.arange(len(present))  # -1 is the last entry
    time = (np.arange(span) * bins // span).astype(np.int32)[update]  # the bin of each row
    cell = row[group] * bins + time
    of_decision = np.full(span * slots, -1, dtype=np.int32)  # the cell of each decision, -1 where there is no decision
    of_decision[update * slots + slot] = cell
    decisions = np.bincount(of_decision[of_decision >= 0], minlength=len(present) * bins).reshape(len(present), 1, bins)
    taught = teacher >= 0
    teachers = len(teacher_names)
    bin_index = (row[group[taught]] * teachers + teacher[taught]) * bins + time[taught]
    total = np.bincount(bin_index, weight[taught], minlength=len(present) * teachers * bins).reshape(len(present), teachers, bins)
    total = total.astype(np.float64)  # of no weights at all, bincount counts in integers
    weights = np.divide(total, decisions, out=np.full_like(total, np.nan), where=decisions > 0)
    names = dict(enumerate(group_names)) | {-1: "group unknown" if group_names else "all examples"}
    edges = first + np.ceil(np.arange(bins + 1) * span / bins)
    return SelectionMap(weights, tuple(names.get(g, f"group {g}") for g in present.tolist()), tuple(teacher_names), edges, 1)
