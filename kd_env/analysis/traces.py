"""Read decision traces. In: the parquet file of a trial. Out: tables of the teachers' weights, over time and by group of examples.

A decision is one pair (update, slot). A trace has one row for each teacher with a weight in a decision. A decision that selects no teacher
is one row with teacher -1 and weight 0. A teacher without a row has weight 0, so all means here are over decisions, not over rows.
``student_ce`` is NaN where the label is unknown.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow
import pyarrow.parquet

from kd_env import spec
from kd_env.errors import InputError

SCHEMA = {
    "update": pyarrow.int32(),
    "slot": pyarrow.int16(),
    "example_id": pyarrow.int32(),
    "group": pyarrow.int16(),
    "teacher": pyarrow.int16(),
    "weight": pyarrow.float32(),
    "reward": pyarrow.float32(),
    "student_ce": pyarrow.float32(),
}
"""Columns that all traces have."""
DECIDED = {
    "gates": pyarrow.list_(pyarrow.float32()),
    "kd_weight": pyarrow.float32(),
    "temperature_scale": pyarrow.float32(),
    "by_knowledge": pyarrow.list_(pyarrow.float32()),
    "strengths": pyarrow.list_(pyarrow.float64()),
    "temperature": pyarrow.float64(),
}
"""Optional columns of a trace. A trace has the first three if the action sets them (:class:`kd_env.types.DecodedAction`). It has the last
three if the policy returned a :class:`~kd_env.types.Decision`: the teacher's weight for each knowledge type, and the decision's strengths
and temperature (:class:`kd_env.envs.decisions.RecordedDecision`)."""
DECISION = ["update", "slot"]
"""Columns that identify a decision."""


def read_trace(path: Path | str) -> pd.DataFrame:
    """Return a trace as a table with the `.attrs` group_names and teacher_names (lists), trial (the id) and differentiable.

    Raises:
        InputError: the file does not exist, or it is not a parquet file or not a trace.
    """
    try:
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: not a readable parquet file ({error}); run the trial again, or delete the file") from error
    metadata = table.schema.metadata or {}
    missing = [name for name in SCHEMA if name not in table.column_names]
    missing += [name for name in ("group_names", "teacher_names") if name.encode() not in metadata]
    optional = {name: kind for name, kind in DECIDED.items() if name in table.column_names}
    missing += [f"{name} as {kind}" for name, kind in optional.items() if table.schema.field(name).type != kind]
    if missing:
        raise InputError(f"{path}: not a trace, it lacks {', '.join(missing)}; name a file of a results folder's traces/")
    trace = table.to_pandas()
    trace.attrs = {
        "group_names": json.loads(metadata[b"group_names"]),
        "teacher_names": json.loads(metadata[b"teacher_names"]),
        "trial": metadata.get(b"trial", b"").decode(),
        "differentiable": metadata.get(b"differentiable") == b"true",
    }
    return trace


def selection_over_time(trace: pd.DataFrame, bins: int = 20) -> pd.DataFrame:
    """Return the mean weight of each teacher. The index is the middle update of each bin, the columns are the numbers of the teachers."""
    return _mean_weight(trace.assign(bin=update_bins(trace, bins)), ["bin"]).rename_axis(index="update")


def selection_by_group(trace: pd.DataFrame, bins: int = 20) -> pd.DataFrame:
    """Return the mean weight of each teacher for each group, with columns update (the middle of its bin), group, teacher and weight.

    Examples of unknown group are in group -1.
    """
    mean = _mean_weight(trace.assign(bin=update_bins(trace, bins)), ["bin", "group"])
    return mean.reset_index().rename(columns={"bin": "update"}).melt(["update", "group"], var_name="teacher", value_name="weight")


def weight_entropy(trace: pd.DataFrame, bins: int = 20) -> pd.Series:
    """Return the mean over decisions of the weights' entropy / ln K, indexed by the middle update of each bin.

    It is 0 for one teacher or none, and 1 for equal weights of all K teachers.
    """
    teachers = len(trace.attrs["teacher_names"])
    weight = trace["weight"].to_numpy(dtype=np.float64)
    terms = -weight * np.log(np.where(weight > 0, weight, 1)) / math.log(max(teachers, 2))
    binned = trace[DECISION].assign(bin=update_bins(trace, bins), entropy=terms)
    return binned.groupby(["bin", *DECISION])["entropy"].sum().groupby("bin").mean().rename_axis("update")


def update_bins(trace: pd.DataFrame, bins: int) -> npt.NDArray[np.float64]:
    """Return the bin of each row as the middle update of that bin. The number of bins is at most the number of updates."""
    if trace.empty:
        raise InputError("an empty trace has no decisions to bin; run the trial for at least one update")
    spec.numbers("trace", least=1, whole=True, bins=bins)
    update = trace["update"].to_numpy(dtype=np.int64)
    first = int(update.min())
    span = int(update.max()) - first + 1
    bins = min(bins, span)
    number = (update - first) * bins // span
    middle: npt.NDArray[np.float64] = first + (number + 0.5) * span / bins - 0.5
    return middle


def _mean_weight(trace: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the mean weight over the decisions of each value of `keys`, one column per teacher."""
    decisions = trace.drop_duplicates(DECISION).groupby(keys).size()
    weight = trace.groupby([*keys, "teacher"])["weight"].sum().unstack("teacher", fill_value=0.0)
    all_teachers = pd.RangeIndex(len(trace.attrs["teacher_names"]), name="teacher")
    return weight.reindex(columns=all_teachers, fill_value=0.0).div(decisions, axis=0)
