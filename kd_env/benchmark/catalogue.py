"""What ``kd-env list`` shows. In: nothing. Out: rows, a dict each, the last column the longest."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable
from typing import Any

from kd_env.benchmark.suites import SUITES
from kd_env.distillation.settings import Settings
from kd_env.envs.observations import COLUMNS
from kd_env.envs.rewards import REWARDS
from kd_env.knowledge import KNOWLEDGE
from kd_env.plugins import resolve
from kd_env.policies.registry import POLICIES, STABLE_BASELINES3, find
from kd_env.tasks import TASKS
from kd_env.teachers import POOLS, heads

Rows = list[dict[str, Any]]


def _tasks() -> Rows:
    return [{"name": name, "about": _about(sys.modules[resolve(path, "task").__module__])} for name, path in TASKS.items()]


def _pools() -> Rows:
    rows: Rows = [{"name": name, "teachers": len(pool.teachers) or "one a group", "about": pool.about} for name, pool in POOLS.items()]
    return [*rows, {"name": "heads(TEACHER)", "teachers": "one a layer", "about": _about(heads)}]


def _policies() -> Rows:
    rows = []
    for name in [*POLICIES, *(f"sb3:{one}" for one in STABLE_BASELINES3)]:
        found = find(name)
        shown = "single:k" if name == "single" else name
        own = name.startswith("sb3") or (found.make.__doc__ or "").startswith("``")  # else the module is about this policy alone
        about = _about(found.make if own else sys.modules[found.make.__module__])
        options = list(inspect.signature(found.make).parameters)[2:]
        rows.append(
            {
                "name": shown,
                "access": found.access,
                "learns from": found.learns_from or "-",
                "paper": found.paper or "-",
                "options": ",".join(options) or "-",
                "about": about,
            }
        )
    return rows


def _knowledge() -> Rows:
    label = {"name": "label", "compares": "logits", "options": "-", "about": _about(sys.modules["kd_env.knowledge.label"])}
    return [label] + [
        {
            "name": name,
            "compares": kind.compares,
            "options": ",".join(["strength", *inspect.signature(kind).parameters]),
            "about": _about(kind),
        }
        for name, kind in KNOWLEDGE.items()
    ]


def _rewards() -> Rows:
    return [{"name": name, "about": _about(function)} for name, function in REWARDS.items()]


def _observations() -> Rows:
    return [
        {
            "observation": kind,
            "block": block,
            "reads the label": "yes" if "[label]" in column else "no",
            "column": column.replace(" [label]", ""),
        }
        for kind, blocks in COLUMNS.items()
        for block, columns in blocks.items()
        for column in columns
    ]


def _suites() -> Rows:
    return [
        {
            "name": name,
            "trials": sum(len(part.policies) for part in suite.parts) * len(suite.seeds),
            "pools": ", ".join(part.teachers or part.task for part in suite.parts),
            "about": suite.about,
        }
        for name, suite in SUITES.items()
    ]


def _settings() -> Rows:
    text = inspect.getdoc(Settings) or ""
    about = dict(line.strip().split(": ", 1) for line in text.splitlines() if line.startswith("    ") and ": " in line)
    return [
        {
            "name": field.name,
            "default": "the task's" if field.default is dataclasses.MISSING else "none" if field.default == "" else field.default,
            "about": about.get(field.name, ""),
        }
        for field in dataclasses.fields(Settings)
    ]


def _about(thing: Any) -> str:
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
    return (text.partition(": ")[2] if text.startswith("``") else text).replace("``", "")


CATALOGUE: dict[str, Callable[[], Rows]] = {
    "tasks": _tasks,
    "pools": _pools,
    "policies": _policies,
    "knowledge": _knowledge,
    "rewards": _rewards,
    "observations": _observations,
    "suites": _suites,
    "settings": _settings,
}
