"""Summarise records in tables. In: records of any number of settings. Out: one table per setting, with one row per policy.

Policies are compared within a setting only. A policy that is paid on the reward split uses the labels of that split, so it is compared with
the best rival that has the same labels. The rival is chosen on validation, and the difference is measured on test.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from kd_env.benchmark.records import Record
from kd_env.benchmark.statistics import gap_recovered, holm, mean_interval, paired_difference
from kd_env.policies.access import ACCESS, SEPARATOR

USES_REWARD_LABELS = frozenset({"reward scalar", "reward gradient", "reward labels"})
RIVALS = ("router", "stacking", "lr_dev", "reward_supervised", "uniform_reward_ce")
SEEDS_FOR_A_CLAIM = 5


@dataclass(frozen=True)
class Setting:
    """The values that trials must share to be compared.

    Attributes:
        task: name of the task.
        pool: name of the pool.
        student: network of the student.
        updates: number of student updates.
        reward_labels: number of reward labels.
        options: other entries of the configuration that differ within a results folder, as pairs of name and JSON value.
    """

    task: str
    pool: str
    student: str
    updates: int
    reward_labels: int
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        options = "".join(f", {name}={value}" for name, value in self.options)
        return f"{self.task}, pool {self.pool}, student {self.student}, {self.updates} updates, {self.reward_labels} reward labels{options}"


def by_setting(records: Sequence[Record]) -> dict[Setting, list[Record]]:
    """Return the records of each setting; settings are in the order of their first record."""
    groups: dict[Setting, list[Record]] = defaultdict(list)
    for r in records:
        groups[Setting(r["task"], r["pool"], r["student"], r["updates"], r["reward_labels"])].append(r)
    settings: dict[Setting, list[Record]] = defaultdict(list)
    for group, members in groups.items():
        varied = _varied_options(members)
        for r in members:
            options = tuple((name, _json(r["config"].get(name))) for name in varied)
            settings[replace(group, options=options)].append(r)
    return dict(settings)


def summarise(records: Sequence[Record]) -> pd.DataFrame:
    """Return the table of one setting, sorted by access class, then by name. Values that cannot be computed are nan.

    Columns:

    - policy, access;
    - n: number of seeds with a test score, or with a validation score if test is not evaluated; diverged: number of diverged runs;
    - test, test_low, test_high, validation;
    - gap, gap_low, gap_high: recovered fraction of the gap from `uniform` to `oracle`;
    - overfit: score on the reward split minus score on validation;
    - rival: whether the policy is the best rival;
    - difference, difference_low, difference_high, pairs, p: test score minus the best rival's, with p Holm-adjusted over the setting;
    - medians of wall_s, peak_rss_mb, student_forward_examples, reward_forward_examples and teacher_forward_examples.
    """
    runs = {policy: _runs([r for r in records if r["policy"] == policy]) for policy in sorted({r["policy"] for r in records})}
    rival = best_rival(records)
    rows = [_row(policy, runs, rival) for policy in runs]
    table = pd.DataFrame(sorted(rows, key=lambda row: (access_rank(row["access"]), row["policy"])))
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p"] = holm(table.loc[tested, "p"].to_numpy())
    return table


def best_rival(records: Sequence[Record]) -> str | None:
    """Return the rival with the highest mean validation score; None if no rival was run."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if base_name(record["policy"]) in RIVALS and record["validation"] is not None:
            scores[record["policy"]].append(record["validation"])
    return max(sorted(scores), key=lambda policy: sum(scores[policy]) / len(scores[policy]), default=None)


def base_name(policy: str) -> str:
    """Return the name of a policy without its options: `router` for `router(width=8)`."""
    return policy.partition("(")[0]


def access_rank(access: str) -> int:
    """Return the index of an access class in ``ACCESS``, or the largest index of several classes; an unknown class comes last."""
    return max(ACCESS.index(name) if name in ACCESS else len(ACCESS) for name in access.split(SEPARATOR))


def uses_reward_labels(access: str) -> bool:
    """Return whether a policy with this access uses the labels of the reward split."""
    return not USES_REWARD_LABELS.isdisjoint(access.split(SEPARATOR))


def _varied_options(records: Sequence[Record]) -> list[str]:
    """Return the names of the configuration entries in which any two trials differ, since such trials are not compared.

    `population` is left out, because a student learns the same alone and in a population, and what is said of a saved policy, because the
    policy's name says it.
    """
    configs = [record["config"] for record in records]
    varied = {name for config in configs for name in config if len({_json(other.get(name)) for other in configs}) > 1}
    return sorted(varied - {"command", "population", "policy_from", "frozen"})


def _runs(records: Sequence[Record]) -> pd.DataFrame:
    """Return the records of one policy as a table with one row per seed; null becomes nan."""
    numbers = ["test", "validation", "reward_split", "wall_s", "peak_rss_mb", *FORWARDS]
    frame = pd.DataFrame(records).set_index("seed").sort_index()
    frame[numbers] = frame[numbers].astype(float)
    return frame


def _row(policy: str, runs: dict[str, pd.DataFrame], rival: str | None) -> dict[str, Any]:
    runs_of_policy = runs[policy]
    test = runs_of_policy["test"].dropna()
    gap = _gap(*(runs[name]["test"] for name in (policy, "uniform", "oracle"))) if {"uniform", "oracle"} <= runs.keys() else []
    row = {
        "policy": policy,
        "access": runs_of_policy["access"].iloc[0],
        "n": len(test) or int(runs_of_policy["validation"].notna().sum()),
        "diverged": int(runs_of_policy["diverged"].sum()),
    }
    row |= dict(zip(("test", "test_low", "test_high"), _mean(test), strict=True))
    row |= dict(zip(("gap", "gap_low", "gap_high"), _mean(gap), strict=True))
    row |= {
        "validation": runs_of_policy["validation"].mean(),
        "overfit": (runs_of_policy["reward_split"] - runs_of_policy["validation"]).mean(),
        "rival": policy == rival,
    }
    row |= _against(test, runs[rival]["test"]) if rival and policy != rival and uses_reward_labels(row["access"]) else NO_DIFFERENCE
    return row | dict(runs_of_policy[["wall_s", "peak_rss_mb", *FORWARDS]].median())


FORWARDS = ("student_forward_examples", "reward_forward_examples", "teacher_forward_examples")
NO_DIFFERENCE = {"difference": math.nan, "difference_low": math.nan, "difference_high": math.nan, "p": math.nan, "pairs": 0}


def _gap(score: pd.Series, floor: pd.Series, ceiling: pd.Series) -> Sequence[float]:
    """Return the recovered gap of each shared seed; an empty list if one seed has no gap, since leaving it out would select seeds."""
    shared = pd.concat([score, floor, ceiling], axis=1, join="inner").dropna().to_numpy()
    gap = gap_recovered(*shared.T) if len(shared) else shared[:, 0]
    return [] if any(math.isnan(value) for value in gap) else gap.tolist()


def _against(score: pd.Series, rival: pd.Series) -> dict[str, float]:
    shared = pd.concat([score, rival], axis=1, join="inner").dropna().to_numpy()
    if not len(shared):
        return NO_DIFFERENCE
    mean, low, high, p = paired_difference(*shared.T)
    return {"difference": mean, "difference_low": low, "difference_high": high, "p": p, "pairs": len(shared)}


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval; nan if there are no values."""
    if not len(values):
        return math.nan, math.nan, math.nan
    return sum(values) / len(values), *mean_interval(values)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
