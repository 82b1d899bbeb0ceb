"""Compare tuned policies with themselves as they are by default. In: a section. Out: a table, where there are tuned policies."""

from __future__ import annotations

import math
from typing import NamedTuple

from kd_env.benchmark.records import Record
from kd_env.benchmark.report_sections import Section, Table
from kd_env.benchmark.report_text import NO_VALUE, difference_text, number
from kd_env.benchmark.statistics import holm, paired_difference
from kd_env.benchmark.summary import records_by_policy
from kd_env.benchmark.tuning.configuration import untuned_name

CAPTION = (
    "Each policy with its defaults, and with the configuration that N validation trials chose. Those trials used other seeds than these. "
    "Differences of test scores are paired by seed; p is Holm-adjusted over this table."
)


def tuned_table(section: Section) -> Table | None:
    """Return the table of the tuned policies of a setting; ``None`` if there are none."""
    of_policy = records_by_policy(section.records)
    tuned = {policy: records for policy, records in of_policy.items() if "tuned" in records[0]["config"]}
    if not tuned:
        return None
    pairs = {policy: _pair(_scores(records), _scores(of_policy.get(untuned_name(policy), []))) for policy, records in tuned.items()}
    tested = [policy for policy, pair in pairs.items() if not math.isnan(pair.p)]
    adjusted = dict(zip(tested, holm([pairs[policy].p for policy in tested]), strict=True)) if tested else {}
    rows = []
    for policy, records in sorted(tuned.items()):
        difference = _difference(pairs[policy], adjusted.get(policy, math.nan))
        trials = str(records[0]["config"]["tuned"]["trials"])
        rows.append((untuned_name(policy), trials, _configuration(records[0]), *_cells(pairs[policy]), difference))
    head = ("policy", "N", "tuned", "n", "test, default", "test, tuned", "tuned − default [95 %]")
    return Table(CAPTION, head, rows)


class Pair(NamedTuple):
    """The scores of a policy, tuned and by default: means, and the mean of the paired differences, its interval and its p."""

    n: int
    untuned: float
    tuned: float
    mean: float
    low: float
    high: float
    p: float


def _scores(records: list[Record]) -> dict[int, float]:
    return {record["seed"]: record["test"] for record in records if record["test"] is not None}


def _pair(tuned: dict[int, float], untuned: dict[int, float]) -> Pair:
    """Return the comparison over the seeds of both; without such seeds there is only the tuned score."""
    shared = sorted(tuned.keys() & untuned.keys())
    if not shared:
        return Pair(len(tuned), math.nan, _mean(list(tuned.values())), math.nan, math.nan, math.nan, math.nan)
    new, old = [tuned[seed] for seed in shared], [untuned[seed] for seed in shared]
    return Pair(len(shared), _mean(old), _mean(new), *paired_difference(new, old))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _cells(pair: Pair) -> tuple[str, str, str]:
    return str(pair.n), number(pair.untuned), number(pair.tuned)


def _difference(pair: Pair, p: float) -> str:
    if math.isnan(pair.mean):
        return NO_VALUE
    return difference_text(pair.mean, pair.low, pair.high, p, pair.n)


def _configuration(record: Record) -> str:
    """Return what tuning changed."""
    tuned = record["config"]["tuned"]
    changed = {name: value for name, value in (tuned["options"] | tuned["settings"]).items() if record["config"].get(name) != value}
    return ", ".join(f"{name}={value}" for name, value in changed.items()) or "the default"
