"""Regret of selection where the best teachers are known. In: a trace, and the pool's answer. Out: curves, recovery times and a table.

The regret of a decision is 1 minus the weight on the best teacher of its instance: 0 for `oracle`, 1 - 1/K for `uniform`, and 1 for a
decision that selects no teacher. In a pool with a drift the best teacher changes at one update of each run, and with it the regret of a
policy that goes on as before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kd_env import tasks
from kd_env.analysis.traces import DECISION
from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers import POOLS
from kd_env.teachers.best_teachers import KnownAnswer, best_teachers

WINDOW = 25
"""Updates over which the regret is averaged to find the level before a change and the recovery after it."""
TOLERANCE = 0.05
"""Largest difference from the level before the change that counts as recovered."""


@dataclass(frozen=True)
class BestTeachers:
    """The answer of a pool for the runs of one task and budget.

    Attributes:
        best: best teacher of each training example, ``[N]``.
        change: the first update with other teachers; ``None`` if the teachers do not change.
        best_after: best teacher of each training example from then on, ``[N]``; the same as ``best`` if they do not change.
    """

    best: np.ndarray
    change: int | None
    best_after: np.ndarray

    @classmethod
    def of(cls, pool: KnownAnswer, task: Task, updates: int) -> BestTeachers | None:
        """Return the answer of a pool, or of its recipe; ``None`` if it is not known.

        Args:
            updates: the budget of the runs.
        """
        best, best_after = (best_teachers(pool, task, progress) for progress in (0.0, 1.0))
        if best is None or best_after is None:
            return None
        if pool.drift is None:
            return cls(best, None, best_after)
        at = pool.drift.at
        change = next(update for update in range(updates + 1) if update / updates >= at)  # as the pool compares; at * updates is rounded
        return cls(best, change, best_after)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> BestTeachers | None:
        """Return the answer for a trial's record; ``None`` if its pool is not a built-in one or its answer is not known."""
        if record["pool"] not in POOLS:
            return None
        task = tasks.load(record["env"]["task"], record["env"].get("data_dir"))
        return cls.of(POOLS[record["pool"]].fitted(task), task, record["updates"])


def regret_by_update(trace: pd.DataFrame, answer: BestTeachers) -> pd.Series:
    """Return the mean regret over the decisions of each update, indexed by the update.

    Raises:
        InputError: the trace is empty.
    """
    if trace.empty:
        raise InputError("an empty trace has no decisions; run the trial for at least one update")
    update, example = trace["update"].to_numpy(), trace["example_id"].to_numpy()
    changed = np.zeros(len(trace), dtype=np.bool_) if answer.change is None else update >= answer.change
    best = np.where(changed, answer.best_after[example], answer.best[example])
    weight = trace["weight"].to_numpy(dtype=np.float64) * (trace["teacher"].to_numpy() == best)
    decisions = trace[DECISION].drop_duplicates().groupby("update").size()
    regret: pd.Series = 1.0 - pd.Series(weight, index=trace["update"]).groupby(level=0).sum() / decisions
    return regret


def regret_curve(trace: pd.DataFrame, answer: BestTeachers, bins: int = 20) -> pd.Series:
    """Return the mean regret over bins of updates, indexed by the middle update of each bin. Each bin is before or after a change."""
    regret = regret_by_update(trace, answer)
    first, end = int(regret.index[0]), int(regret.index[-1]) + 1
    edges: list[float] = [float(first)]
    change = end if answer.change is None else min(max(answer.change, first), end)
    for start, stop in ((first, change), (change, end)):
        if stop > start:
            count = min(max(round(bins * (stop - start) / (end - first)), 1), stop - start)
            edges += np.linspace(start, stop, count + 1)[1:].tolist()
    number = np.searchsorted(edges, regret.index.to_numpy(), side="right") - 1
    middle = (np.array(edges[:-1]) + np.array(edges[1:]) - 1.0) / 2.0
    curve: pd.Series = regret.groupby(middle[number]).mean().rename_axis("update")
    return curve


def recovery_updates(trace: pd.DataFrame, answer: BestTeachers, tolerance: float = TOLERANCE, window: int = WINDOW) -> int | None:
    """Return the number of updates from the change until the regret is back at its level before the change.

    The level is the mean over the last ``window`` updates before the change. The regret is back at the first update from which on its mean
    over ``window`` updates is at most the level plus ``tolerance``. Report the level too: a policy with a high one has little to recover.

    Returns:
        0 if the change does not matter to the policy, ``None`` if the regret does not come back before the end.

    Raises:
        InputError: the teachers do not change, or the trace has fewer than ``window`` updates before or after the change.
    """
    if answer.change is None:
        raise InputError("recovery_updates: the teachers of this pool do not change; use a pool with a drift, such as digits/drift")
    regret = regret_by_update(trace, answer)
    before, after = regret[regret.index < answer.change], regret[regret.index >= answer.change]
    if min(len(before), len(after)) < window:
        raise InputError(f"recovery_updates: {len(before)} updates before the change and {len(after)} after it; window={window} needs more")
    level = before.iloc[-window:].mean()
    means = after.rolling(window).mean().iloc[window - 1 :].to_numpy()
    back = np.flatnonzero(means <= level + tolerance + 1e-9)  # the sums of a rolling mean are rounded
    return int(back[0]) if len(back) else None


def regret_table(
    traces: Mapping[str, Sequence[pd.DataFrame]], answer: BestTeachers, tolerance: float = TOLERANCE, window: int = WINDOW
) -> pd.DataFrame:
    """Return the regret of several policies, lowest first.

    Args:
        traces: traces of each policy, one for each seed, all of the pool and budget of ``answer``.

    Returns:
        One row for each policy, which is the index. Columns, as means over its traces: ``regret``; for a pool that changes also ``before``
        (the last ``window`` updates before the change), ``drop`` (the first ``window`` after it), ``end`` (the last ``window``),
        ``recovered`` (the part of the traces that recover) and ``recovery`` (the median number of updates until then, over those).
    """
    rows: dict[str, dict[str, float]] = {}
    for policy, of_policy in traces.items():
        regrets = [regret_by_update(trace, answer) for trace in of_policy]
        rows[policy] = {"n": len(regrets), "regret": float(np.mean([regret.mean() for regret in regrets]))}
        if answer.change is not None:
            spans = {"before": (answer.change - window, answer.change), "drop": (answer.change, answer.change + window)}
            for name, (start, stop) in spans.items():
                rows[policy][name] = float(np.mean([regret[(regret.index >= start) & (regret.index < stop)].mean() for regret in regrets]))
            rows[policy]["end"] = float(np.mean([regret[regret.index > regret.index[-1] - window].mean() for regret in regrets]))
            recoveries = [recovery_updates(trace, answer, tolerance, window) for trace in of_policy]
            known = [recovery for recovery in recoveries if recovery is not None]
            rows[policy] |= {"recovered": len(known) / len(recoveries), "recovery": float(np.median(known)) if known else math.nan}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
    return table.sort_values("regret") if len(table) else table
