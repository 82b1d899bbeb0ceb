"""Compare the student updates per second of learned policies with uniform, each with the env keywords that it declares.

In: a task's name. Out: rows of a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from kd_env import tasks
from kd_env.benchmark.run_trial import teach
from kd_env.policies import registry
from speed.measure import Row, Subject, compare
from speed.plain_loop import PlainLoop
from speed.updates import slots

NAMES = ("uniform", "reinforce", "gradient_credit", "sb3:PPO")


def learned_policies(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Time policies that learn during the run. A block trains a new student for ``count`` updates, a multiple of 16, PPO's rollout."""
    subjects = [Subject(name, _teaching(name, task, device, count), count) for name in NAMES]
    return compare(f"Policies that learn while they teach: {task}", subjects, "updates/s", turns)


def against_plain_loop(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Time policies at their defaults, with observations, rewards, credit and their own learning, against a hand-written loop."""
    selection = slots(task, device, precision="float32").selection
    plain = PlainLoop(selection.data, selection.settings.distillation, 0, device)
    few = {"credit": "difference(smoothing=-0.3,examples=32,decay=0.9)"}
    subjects = [
        Subject("plain PyTorch loop", lambda: [plain.update() for _ in range(count)], count),
        *(
            Subject(name, _teaching(name, task, device, count), count)
            for name in ("uniform", "reinforce", "held_credit", "crossfit_credit")
        ),
        Subject("held_credit, credit of few examples", _teaching("held_credit", task, device, count, few), count),
        Subject("crossfit_credit, credit_refresh=4", _teaching("crossfit_credit", task, device, count, {"credit_refresh": 4}), count),
    ]
    return compare(f"Whole runs against a hand-written loop: {task}", subjects, "ms/update", turns)


def in_a_population(task: str, device: torch.device, names: Sequence[str], size: int, turns: int, count: int) -> list[Row]:
    """Compare ``size`` learned policies, each with a student of its own, in one population and one after the other."""
    table: list[Row] = []
    for name in names:
        subjects = [
            Subject(f"{size} lone runs", _repeated(_teaching(name, task, device, count), size), size * count),
            Subject(f"a population of {size}", _teaching(name, task, device, count, students=size), size * count),
        ]
        table += compare(f"Learned policies in a population: {task}, {name}, S={size}", subjects, "updates/s", turns)
    return table


def _teaching(
    name: str, task: str, device: torch.device, count: int, more_options: Mapping[str, Any] | None = None, students: int = 1
) -> Callable[[], object]:
    """Return a function that trains new students for ``count`` updates, each with its own policy, in one environment."""
    policy_class = registry.find(name)
    validation_every = tasks.load(task).defaults.updates // 20  # as in a whole run
    defaults = {"reward_every": 1, "updates": count, "validation_every": validation_every}
    options: dict[str, Any] = {**defaults, **policy_class.env_options, **(more_options or {})}
    options.pop("granularity", None)
    env = slots(task, device, students, autoreset_mode="same_step", **options)
    policies = [policy_class.build(env, seed, seed if students > 1 else None) for seed in range(students)]
    return lambda: teach(env, policies, range(students))


def _repeated(do: Callable[[], object], times: int) -> Callable[[], object]:
    return lambda: [do() for _ in range(times)]
