"""Decision traces. In: the parquet file of a trial. Out: who was selected, over time and by group.

A trace is long: a row for each teacher with weight in a decision, a decision being one (update, slot). A decision that selected nobody
is one row with teacher -1 and weight 0. A teacher without a row counts as weight 0, so every mean here is over decisions, not over rows.
Where the label is unknown ``student_ce`` is NaN.
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
"""Columns of a trace."""
DECIDED = {
    "gates": pyarrow.list_(pyarrow.float32()),
    "kd_weight": pyarrow.float32(),
    "temperature_scale": pyarrow.float32(),
    "by_knowledge": pyarrow.list_(pyarrow.float32()),
    "strengths": pyarrow.list_(pyarrow.float64()),
    "temperature": pyarrow.float64(),
}
"""Further columns, where actions decide them (:class:`kd_env.envs.actions.Choice`), or where a policy gave whole decisions: the teacher's
weight by knowledge type, and the decision's strengths and temperature (:class:`kd_env.envs.decisions.RecordedDecision`)."""
DECISION = ["update", "slot"]


def read_trace(path: Path | str) -> pd.DataFrame:
    """A trace with `.attrs` group_names, teacher_names (lists) and trial.

    Raises:
        InputError: no such file, not parquet, or not a trace.
    """
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InputError(f"{path}: no readable parquet file ({error}); run the trial again, or delete the file") from error
    metadata = table.schema.metadata or {}
    missing = [name for name in SCHEMA if name not in table.column_names]
    missing += [name for name in ("group_names", "teacher_names") if name.encode() not in metadata]
    decided = {name: kind for name, kind in DECIDED.items() if name in table.column_names}
    missing += [f"{name} as {kind}" for name, kind in decided.items() if table.schema.field(name).type != kind]
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
    """Mean weight: index the middle update of each bin, a column for each teacher number."""
    return _mean_weight(trace.assign(bin=_bin(trace, bins)), ["bin"]).rename_axis(index="update")


def selection_by_group(trace: pd.DataFrame, bins: int = 20) -> pd.DataFrame:
    """Mean weight, long: columns update (the middle of its bin), group, teacher, weight. Group -1 is "unknown"."""
    mean = _mean_weight(trace.assign(bin=_bin(trace, bins)), ["bin", "group"])
    return mean.reset_index().rename(columns={"bin": "update"}).melt(["update", "group"], var_name="teacher", value_name="weight")


def selection_entropy(trace: pd.DataFrame, bins: int = 20) -> pd.Series:
    """Mean over decisions of the weights' entropy / ln K: 0 is one teacher (or none), 1 is all alike. Index: middle of the bin."""
    teachers = len(trace.attrs["teacher_names"])
    weight = trace["weight"].to_numpy(dtype=np.float64)
    terms = -weight * np.log(np.where(weight > 0, weight, 1)) / math.log(max(teachers, 2))
    binned = trace[DECISION].assign(bin=_bin(trace, bins), entropy=terms)
    return binned.groupby(["bin", *DECISION])["entropy"].sum().groupby("bin").mean().rename_axis("update")


def _mean_weight(trace: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean weight over the decisions of each value of `keys`, a column a teacher."""
    decisions = trace.drop_duplicates(DECISION).groupby(keys).size()
    weight = trace.groupby([*keys, "teacher"])["weight"].sum().unstack("teacher", fill_value=0.0)
    everyone = pd.RangeIndex(len(trace.attrs["teacher_names"]), name="teacher")
    return weight.reindex(columns=everyone, fill_value=0.0).div(decisions, axis=0)


def _bin(trace: pd.DataFrame, bins: int) -> npt.NDArray[np.float64]:
    """Each row's bin, named by its middle update; never more bins than updates."""
    if trace.empty:
        raise InputError("an empty trace has no decisions to bin; run the trial for at least one update")
    update = trace["update"].to_numpy(dtype=np.int64)
    first = int(update.min())
    span = int(update.max()) - first + 1
    bins = min(bins, span)
    number = (update - first) * bins // span
    middle: npt.NDArray[np.float64] = first + (number + 0.5) * span / bins - 0.5
    return middle
