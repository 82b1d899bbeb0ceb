"""Turn a trace into decisions. In: a trace, which has a row per teacher with weight. Out: a row per decision, and a matrix of weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kd_env.analysis.traces import DECISION
from kd_env.errors import InputError

FloatArray = npt.NDArray[np.float64]
INSTANCE = [*DECISION, "example_id"]
"""Columns that two runs with the same seed have in common: the same example is in the same slot of the same mini-batch."""


class Decisions(NamedTuple):
    """The n decisions of a trace.

    Attributes:
        table: one row per decision, in the order of update and slot, with columns update, slot, example_id, group, reward and student_ce.
        weights: weights of the teachers, ``[n, K]``; a row is all zero if no teacher teaches the instance.
    """

    table: pd.DataFrame
    weights: FloatArray

    def take(self, rows: npt.NDArray[np.int64]) -> Decisions:
        """Return some of the decisions."""
        return Decisions(self.table.iloc[rows].reset_index(drop=True), self.weights[rows])


def decisions(trace: pd.DataFrame) -> Decisions:
    """Return the decisions of a trace.

    Raises:
        InputError: the trace is empty.
    """
    if trace.empty:
        raise InputError("an empty trace has no decisions; run the trial for at least one update")
    number = trace.groupby(DECISION, sort=True).ngroup().to_numpy()
    table = trace[["update", "slot", "example_id", "group", "reward", "student_ce"]].iloc[np.unique(number, return_index=True)[1]]
    weights = np.zeros((len(table), len(trace.attrs["teacher_names"])))
    teacher = trace["teacher"].to_numpy()
    taught = teacher >= 0
    weights[number[taught], teacher[taught]] = trace["weight"].to_numpy(dtype=np.float64)[taught]
    return Decisions(table.reset_index(drop=True), weights)


def choices(weights: FloatArray) -> FloatArray:
    """Return the probability that each teacher is the first choice, ``[n, K] -> [n, K + 1]``; the last column is the choice of no teacher.

    The first choice is the teacher with the largest weight. Teachers with equal weights share the probability, as if one were drawn.
    """
    largest = weights.max(1, keepdims=True)
    first = (weights == largest) & (largest > 0)
    first = np.concatenate([first, largest <= 0], axis=1).astype(np.float64)
    share: FloatArray = first / first.sum(1, keepdims=True)
    return share


def matched(trace: pd.DataFrame, other: pd.DataFrame) -> tuple[Decisions, Decisions]:
    """Return the decisions that two runs made about the same example in the same mini-batch, in the same order.

    Raises:
        InputError: there are none, as when the seeds of the runs differ.
    """
    first, second = decisions(trace), decisions(other)
    if first.table[INSTANCE].equals(second.table[INSTANCE]):  # the usual case, and faster than a join
        return first, second
    places = first.table[INSTANCE].reset_index().merge(second.table[INSTANCE].reset_index(), on=INSTANCE, suffixes=("", "_other"))
    if places.empty:
        raise InputError("the traces have no decision in common; compare runs of the same task, seed and batch size")
    return first.take(places["index"].to_numpy()), second.take(places["index_other"].to_numpy())
