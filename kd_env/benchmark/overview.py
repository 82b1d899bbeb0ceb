"""All settings of a folder side by side. In: records. Out: one row a policy, one column a setting.

A cell is the mean test score over seeds with the half-width of its 95 % t interval, and the mean difference to ``uniform``, paired by seed;
``▲`` or ``▼`` where the interval of that difference lies above or below zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kd_env.benchmark.records import Record
from kd_env.benchmark.report_text import NOTHING, number
from kd_env.benchmark.statistics import mean_interval, paired_difference
from kd_env.benchmark.summary import Setting, base_name
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.policies.access import ACCESS

FLOOR = "uniform"


def overview(settings: Mapping[Setting, Sequence[Record]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows; settings by their pool, rows by access class and name."""
    every = {policy: access for records in settings.values() for policy, access in ((r["policy"], r["access"]) for r in records)}
    order = sorted(every, key=lambda policy: (ACCESS.index(every[policy]) if every[policy] in ACCESS else len(ACCESS), policy))
    rows, before = [], ""
    for policy in order:
        first = "" if every[policy] == before else every[policy]
        before = every[policy]
        rows.append([first, policy, _paper(policy), *(_cell(policy, records) for records in settings.values())])
    return ["access", "policy", "paper", *(_name(setting, len({one.task for one in settings}) > 1) for setting in settings)], rows


def _name(setting: Setting, several_tasks: bool) -> str:
    """The pool; before it the task, where there are several and the pool's name does not say which."""
    said = not several_tasks or setting.pool.startswith(f"{base_name(setting.task)}/")
    return setting.pool if said else f"{setting.task}, {setting.pool}"


def _cell(policy: str, records: Sequence[Record]) -> str:
    own, floor = (_scores(name, records) for name in (policy, FLOOR))
    lost = sum(record["diverged"] for record in records if record["policy"] == policy)
    if not own:
        return f"{lost} diverged" if lost else NOTHING
    mean, low, high = sum(own.values()) / len(own), *mean_interval(list(own.values()))
    width = "" if math.isnan(low) else f" ± {(high - low) / 2:.3f}"  # one seed has no interval
    text = f"{mean:.3f}{width}" + (f" ({lost} diverged)" if lost else "")
    shared = sorted(own.keys() & floor.keys())
    if policy == FLOOR or len(shared) < 2:
        return text
    difference, low, high, _ = paired_difference([own[seed] for seed in shared], [floor[seed] for seed in shared])
    mark = " ▲" if low > 0.0 else " ▼" if high < 0.0 else ""
    return f"{text} ({number(difference, '+')}{mark})"


def _scores(policy: str, records: Sequence[Record]) -> dict[int, float]:
    return {record["seed"]: record["test"] for record in records if record["policy"] == policy and record["test"] is not None}


def _paper(policy: str) -> str:
    try:
        return registry.find(policy).paper or NOTHING
    except InputError:  # a plug-in that is not importable from here
        return NOTHING
