"""Make the tables of ``kd-env list``. In: nothing. Out: rows as dicts; the last column is the longest."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable
from typing import Any

from kd_env.benchmark.suites import SUITES
from kd_env.envs.actions import ACTIONS
from kd_env.envs.credit import CREDITS
from kd_env.envs.observations import LABEL, OBSERVATIONS
from kd_env.envs.rewards import REWARDS
from kd_env.envs.settings import GROUPS
from kd_env.knowledge import KNOWLEDGE
from kd_env.plugins import resolve
from kd_env.policies.registry import POLICIES, SB3_CONTRIB, STABLE_BASELINES3, find
from kd_env.tasks import TASKS
from kd_env.teachers import POOLS, heads

Rows = list[dict[str, Any]]


def _tasks() -> Rows:
    rows = []
    for name, path in TASKS.items():
        load = resolve(path, "task")
        one_of_several = load.__name__ != "load"  # as in the module of GLUE's tasks: the function says which task it is
        rows.append({"name": name, "about": _about(load if one_of_several else sys.modules[load.__module__])})
    return rows


def _pools() -> Rows:
    rows: Rows = [{"name": name, "teachers": len(pool.teachers) or "one per group", "about": pool.about} for name, pool in POOLS.items()]
    return [*rows, {"name": "heads(TEACHER)", "teachers": "one per layer", "about": _about(heads)}]


def _policies() -> Rows:
    rows = []
    for name in [*POLICIES, *(f"sb3:{algorithm}" for algorithm in (*STABLE_BASELINES3, *SB3_CONTRIB))]:
        policy = find(name)
        class_is_documented = name.startswith("sb3") or (policy.make.__doc__ or "").startswith("``")  # else see its module
        about = _about(policy.make if class_is_documented else sys.modules[policy.make.__module__])
        options = list(inspect.signature(policy.make).parameters)[2:]
        rows.append(
            {
                "name": "single:k" if name == "single" else name,
                "access": policy.access,
                "learns from": policy.learns_from or "-",
                "paper": policy.paper or "-",
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
            "options": ",".join(["strength", "skip_epochs", *inspect.signature(kind).parameters]),
            "about": _about(kind),
        }
        for name, kind in KNOWLEDGE.items()
    ]


def _rewards() -> Rows:
    return [{"name": name, "about": _about(function)} for name, function in REWARDS.items()]


def _actions() -> Rows:
    return [{"name": name, "about": _about(kind)} for name, kind in ACTIONS.items()]


def _credits() -> Rows:
    shared: Rows = [{"name": "shared", "about": "Do not divide the reward among teachers."}]
    return shared + [{"name": name, "about": _about(function)} for name, function in CREDITS.items()]


def _observations() -> Rows:
    return [
        {
            "observation": kind,
            "block": block,
            "reads the label": "yes" if LABEL in column else "no",
            "column": column.replace(f" {LABEL}", ""),
        }
        for kind, observation_set in OBSERVATIONS.items()
        for block, columns in observation_set.columns.items()
        for column in columns
    ]


def _suites() -> Rows:
    return [
        {
            "name": name,
            "trials": sum(len(part.policies) * len(part.seeds or suite.seeds) for part in suite.parts),
            "pools": ", ".join(dict.fromkeys(part.teachers or part.task for part in suite.parts)),
            "about": suite.about,
        }
        for name, suite in SUITES.items()
    ]


def _settings() -> Rows:
    rows = []
    for group in GROUPS:
        text = (inspect.getdoc(group) or "").replace("\n        ", " ")  # lines that go on
        about = dict(line.strip().split(": ", 1) for line in text.splitlines() if line.startswith("    ") and ": " in line)
        rows += [
            {
                "name": field.name,
                "default": "the task's" if field.default is dataclasses.MISSING else "none" if field.default == "" else field.default,
                "about": about.get(field.name, ""),
            }
            for field in dataclasses.fields(group)
        ]
    return rows


def _about(documented: Any) -> str:
    """Return the first paragraph of a docstring, without the name before its colon."""
    text = (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ")
    return (text.partition(": ")[2] if text.startswith("``") else text).replace("``", "")


CATALOGUE: dict[str, Callable[[], Rows]] = {
    "tasks": _tasks,
    "pools": _pools,
    "policies": _policies,
    "knowledge": _knowledge,
    "rewards": _rewards,
    "credits": _credits,
    "actions": _actions,
    "observations": _observations,
    "suites": _suites,
    "settings": _settings,
}
