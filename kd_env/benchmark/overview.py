"""Make a table of all settings of a folder. In: records. Out: one row per policy, one column per setting.

A cell contains the mean test score over seeds with the half-width of its 95 % t interval, and the mean difference to ``uniform``, paired
by seed. If all trials were run with ``--no-test``, scores are those on validation. The mark ``▲`` or ``▼`` means that the interval of
that difference is above or below zero.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kd_env.benchmark.grouping import Setting
from kd_env.benchmark.records import Record
from kd_env.benchmark.report_text import NO_VALUE, number
from kd_env.benchmark.statistics import mean_interval, paired_difference
from kd_env.benchmark.summary import access_rank, base_name, records_by_policy
from kd_env.benchmark.tuning.configuration import untuned_name
from kd_env.errors import InputError
from kd_env.policies import registry

REFERENCE = "uniform"


def overview(settings: Mapping[Setting, Sequence[Record]]) -> tuple[list[str], list[list[str]]]:
    """Return the column names and the rows. Rows are sorted by access class and name."""
    access_of = {record["policy"]: record["access"] for records in settings.values() for record in records}
    split = split_of_scores(settings)
    columns = [_by_policy(records, split) for records in settings.values()]
    rows, previous = [], ""
    for policy in sorted(access_of, key=lambda policy: (access_rank(access_of[policy]), policy)):
        access = access_of[policy]
        first, previous = "" if access == previous else access, access
        rows.append([first, policy, _paper(policy), *(_cell(policy, column) for column in columns)])
    return ["access", "policy", "paper", *column_names(list(settings))], rows


def split_of_scores(settings: Mapping[Setting, Sequence[Record]]) -> str:
    """Return the split of the scores in the table: ``validation`` if no trial was to be scored on test, else ``test``."""
    return "test" if any(record["config"].get("test", True) for records in settings.values() for record in records) else "validation"


def column_names(settings: Sequence[Setting]) -> list[str]:
    """Return a short name of each setting: its pool, and what distinguishes it from other settings with that pool."""
    several_tasks = len({setting.task for setting in settings}) > 1
    by_pool: dict[str, list[dict[str, str]]] = defaultdict(list)
    for setting in settings:
        by_pool[_pool_name(setting, several_tasks)].append(_parts(setting))
    names = []
    for setting in settings:
        pool, parts = _pool_name(setting, several_tasks), _parts(setting)
        differing = [text for name, text in parts.items() if len({other.get(name) for other in by_pool[pool]}) > 1]
        names.append(", ".join([pool, *differing]))
    return names


class Scores(NamedTuple):
    """The scores of a policy by seed, and the number of its runs that diverged."""

    by_seed: dict[int, float]
    diverged: int


def _by_policy(records: Sequence[Record], split: str) -> dict[str, Scores]:
    return {
        policy: Scores(
            {record["seed"]: record[split] for record in of_policy if record[split] is not None},
            sum(record["diverged"] for record in of_policy),
        )
        for policy, of_policy in records_by_policy(records).items()
    }


def _parts(setting: Setting) -> dict[str, str]:
    """Return the texts of what settings with one pool can differ in."""
    parts = {"student": setting.student, "updates": f"{setting.updates} updates", "labels": f"{setting.reward_labels} reward labels"}
    return parts | setting.option_texts()


def _pool_name(setting: Setting, several_tasks: bool) -> str:
    """Return the name of the pool, after the name of the task if there are several tasks and the pool's name does not contain it."""
    pool_is_enough = not several_tasks or setting.pool.startswith(f"{base_name(setting.task)}/")
    return setting.pool if pool_is_enough else f"{setting.task}, {setting.pool}"


def _cell(policy: str, column: Mapping[str, Scores]) -> str:
    nothing = Scores({}, 0)
    (scores, diverged), (reference, _) = column.get(policy, nothing), column.get(REFERENCE, nothing)
    if not scores:
        return f"{diverged} diverged" if diverged else NO_VALUE
    mean, low, high = sum(scores.values()) / len(scores), *mean_interval(list(scores.values()))
    width = "" if math.isnan(low) else f" ± {(high - low) / 2:.3f}"  # one seed has no interval
    text = f"{mean:.3f}{width}" + (f" ({diverged} diverged)" if diverged else "")
    shared = sorted(scores.keys() & reference.keys())
    if policy == REFERENCE or len(shared) < 2:
        return text
    difference, low, high, _ = paired_difference([scores[seed] for seed in shared], [reference[seed] for seed in shared])
    mark = " ▲" if low > 0.0 else " ▼" if high < 0.0 else ""
    return f"{text} ({number(difference, '+')}{mark})"


def _paper(policy: str) -> str:
    try:
        return registry.find(untuned_name(policy)).paper or NO_VALUE
    except InputError:  # a plug-in that cannot be imported from here
        return NO_VALUE
