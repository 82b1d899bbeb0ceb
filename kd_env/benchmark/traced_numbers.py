"""Compute what a record can take from its trace alone. In: the trace of one student. Out: the fields of the record that differ from it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from kd_env.analysis.traces import DECISION
from kd_env.benchmark.records import Record
from kd_env.benchmark.rerun import shown

ROUNDING = 1e-5
"""Largest relative difference of a sum over the trace, which holds float32."""


def traced_differences(record: Record, trace: pd.DataFrame, num_teachers: int) -> list[str]:
    """Return the fields of a record that differ from its trace, one line each.

    Args:
        record: record of a trial.
        trace: decisions about the student of the trial, without those about its peers.
        num_teachers: number of teachers K.
    """
    decisions = trace.drop_duplicates(DECISION)
    taught = trace[trace["teacher"] >= 0]
    mean_weight = taught.groupby("teacher")["weight"].sum() / max(len(decisions), 1)
    weight = trace["weight"].to_numpy(dtype=np.float64)
    entropy = -(weight * np.log(np.maximum(weight, 1e-30))).sum() / max(len(decisions), 1) / math.log(max(num_teachers, 2))
    traced: dict[str, Any] = {
        "selection_rate": [float(mean_weight.get(teacher, 0.0)) for teacher in range(num_teachers)],
        "weight_entropy": float(entropy),
        "reward_sum": float(decisions["reward"].astype(np.float64).groupby(decisions["update"]).mean().sum()),
    }
    lines = [
        f"{name}: recorded {shown(record[name])}, the trace says {shown(value)}"
        for name, value in traced.items()
        if not _equal(record[name], value)
    ]
    recorded_losses = [point.get("train_loss") for point in record["curve"]]
    losses = train_losses(trace, [point["update"] for point in record["curve"]])
    if not _equal(recorded_losses, losses):
        lines.append(f"curve: recorded the train_loss {shown(recorded_losses)}, the trace says {shown(losses)}")
    return lines


def train_losses(trace: pd.DataFrame, updates: list[int]) -> list[float]:
    """Return the student's mean cross-entropy up to each of ``updates``, from the one before; 0 where no label is known."""
    by_update = trace.drop_duplicates(DECISION).astype({"student_ce": np.float64}).groupby("update")["student_ce"].mean().dropna()
    means = [by_update[(by_update.index >= start) & (by_update.index < end)] for start, end in pairwise([0, *updates])]
    return [float(part.mean()) if len(part) else 0.0 for part in means]


def _equal(recorded: Any, traced: Any) -> bool:
    """Return whether numbers, or lists of them, agree; a recorded null is a number that is not finite."""
    new, old = (np.asarray(value, dtype=np.float64) for value in (traced, recorded))
    return new.shape == old.shape and np.allclose(np.where(np.isfinite(new), new, np.nan), old, ROUNDING, ROUNDING, equal_nan=True)
