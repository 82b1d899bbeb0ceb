"""Summarise records in tables. In: records of any number of settings. Out: one table per setting, with one row per policy.

Policies are compared within a setting only. A policy that is paid on the reward split uses the labels of that split, so it is compared with
the best rival that has the same labels. The rival is chosen on validation, and the difference is measured on test.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kd_env.analysis.seeds import require_one_setting
from kd_env.benchmark.records import Record
from kd_env.benchmark.statistics import FloatArray, gap_recovered, holm, mean_interval, paired_difference
from kd_env.benchmark.tuning.configuration import untuned_name
from kd_env.errors import InputError
from kd_env.policies.access import ACCESS, SEPARATOR

USES_REWARD_LABELS = frozenset({"reward scalar", "reward gradient", "reward labels"})
RIVALS = ("router", "stacking", "taught_stacking", "lr_dev", "reward_supervised", "uniform_reward_ce")
SEEDS_FOR_A_CLAIM = 5


def summarise(records: Sequence[Record]) -> pd.DataFrame:
    """Return the table of one setting, sorted by access class, then by name. Values that cannot be computed are nan.

    Columns:

    - policy, access;
    - n: number of seeds with a test score, or with a validation score if test is not evaluated; diverged: number of diverged runs;
    - test, test_low, test_high, validation;
    - gap, gap_low, gap_high: recovered fraction of the gap from `uniform` to `oracle`, over the seeds of all three; none
      if one of the three diverged with such a seed;
    - overfit: score on the reward split minus score on validation;
    - rival: whether the policy is the best rival;
    - difference, difference_low, difference_high, pairs, p: test score minus the best rival's, with p Holm-adjusted over the setting;
    - medians of wall_s, peak_rss_mb, student_forward_examples, reward_forward_examples and teacher_forward_examples.

    Raises:
        InputError: there are no records, or a policy has two records with one seed, because they are of two settings.
    """
    if not records:
        raise InputError("summarise: no records; give the records of one setting, see kd_env.benchmark.grouping.by_setting")
    require_one_setting(records)
    of_policy = records_by_policy(records)
    runs = {policy: _runs(of_policy[policy]) for policy in sorted(of_policy)}
    rival = best_rival(records)
    rows = [_row(policy, runs, rival) for policy in runs]
    table = pd.DataFrame(sorted(rows, key=lambda row: (access_rank(row["access"]), row["policy"])))
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p"] = holm(table.loc[tested, "p"].to_numpy())
    return table


def by_score(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a setting sorted by test score, the highest first; by validation score where test is not evaluated."""
    return table.sort_values(["test", "validation"], ascending=False, kind="stable")


def best_rival(records: Sequence[Record]) -> str | None:
    """Return the rival with the highest mean validation score; None if no rival was run, or none has a score."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if base_name(record["policy"]) in RIVALS and not _missing(record["validation"]):
            scores[record["policy"]].append(record["validation"])
    return max(sorted(scores), key=lambda policy: sum(scores[policy]) / len(scores[policy]), default=None)


def base_name(policy: str) -> str:
    """Return the name of a policy without its options and without what tuning adds: `router` for `router(width=8)`."""
    return untuned_name(policy).partition("(")[0]


def access_rank(access: str) -> int:
    """Return the index of an access class in ``ACCESS``, or the largest index of several classes; an unknown class comes last."""
    return max(ACCESS.index(name) if name in ACCESS else len(ACCESS) for name in access.split(SEPARATOR))


def records_by_policy(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the records of each policy, policies in the order of their first record."""
    of_policy: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        of_policy[record["policy"]].append(record)
    return dict(of_policy)


def uses_reward_labels(access: str) -> bool:
    """Return whether a policy with this access uses the labels of the reward split."""
    return not USES_REWARD_LABELS.isdisjoint(access.split(SEPARATOR))


class Runs(NamedTuple):
    """The records of one policy, sorted by seed.

    Attributes:
        access: access class of the policy.
        diverged: seeds of the diverged runs.
        test: test score by seed, for the seeds that have one.
        values: the number of each run by name of the field, nan where it is null.
    """

    access: str
    diverged: set[int]
    test: dict[int, float]
    values: dict[str, FloatArray]


def _runs(records: Sequence[Record]) -> Runs:
    records = sorted(records, key=lambda record: int(record["seed"]))
    names = ("validation", "reward_split", *MEDIANS)
    values = {name: np.array([record[name] for record in records], dtype=np.float64) for name in names}
    test = {record["seed"]: float(record["test"]) for record in records if not _missing(record["test"])}
    return Runs(records[0]["access"], {record["seed"] for record in records if record["diverged"]}, test, values)


def _row(policy: str, runs: dict[str, Runs], rival: str | None) -> dict[str, Any]:
    access, diverged, test, values = runs[policy]
    gap = _gap(*(runs[name] for name in (policy, "uniform", "oracle"))) if {"uniform", "oracle"} <= runs.keys() else []
    row = {
        "policy": policy,
        "access": access,
        "n": len(test) or int(np.isfinite(values["validation"]).sum()),
        "diverged": len(diverged),
    }
    row |= dict(zip(("test", "test_low", "test_high"), _mean(list(test.values())), strict=True))
    row |= dict(zip(("gap", "gap_low", "gap_high"), _mean(gap), strict=True))
    row |= {
        "validation": _nanmean(values["validation"]),
        "overfit": _nanmean(values["reward_split"] - values["validation"]),
        "rival": policy == rival,
    }
    row |= _against(test, runs[rival].test) if rival and policy != rival and uses_reward_labels(access) else NO_DIFFERENCE
    return row | {name: _nanmedian(values[name]) for name in MEDIANS}


FORWARDS = ("student_forward_examples", "reward_forward_examples", "teacher_forward_examples")
MEDIANS = ("wall_s", "peak_rss_mb", *FORWARDS)
NO_DIFFERENCE = {"difference": math.nan, "difference_low": math.nan, "difference_high": math.nan, "p": math.nan, "pairs": 0}


def _gap(policy: Runs, uniform: Runs, oracle: Runs) -> Sequence[float]:
    """Return the recovered gap of each seed that all three were run with; an empty list if one of these seeds has no gap.

    A seed has no gap where one of the three diverged, or where `oracle` is not above `uniform`; to leave it out would select seeds. A seed
    that one of them was not run with, or was not tested with, says nothing about the policy, and does not count.
    """
    compared = (policy, uniform, oracle)
    seeds = sorted(set.intersection(*(runs.test.keys() | runs.diverged for runs in compared)))
    if not seeds or any(seed not in runs.test for runs in compared for seed in seeds):
        return []
    gap: list[float] = gap_recovered(*([runs.test[seed] for seed in seeds] for runs in compared)).tolist()
    return [] if any(math.isnan(value) for value in gap) else gap


def _against(score: Mapping[int, float], rival: Mapping[int, float]) -> dict[str, float]:
    seeds = [seed for seed in score if seed in rival]
    if not seeds:
        return NO_DIFFERENCE
    mean, low, high, p = paired_difference([score[seed] for seed in seeds], [rival[seed] for seed in seeds])
    return {"difference": mean, "difference_low": low, "difference_high": high, "p": p, "pairs": len(seeds)}


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval; nan if there are no values."""
    if not len(values):
        return math.nan, math.nan, math.nan
    return sum(values) / len(values), *mean_interval(values)


def _nanmean(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.sum() / len(finite)) if len(finite) else math.nan


def _nanmedian(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
