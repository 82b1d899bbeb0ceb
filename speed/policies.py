"""Policies: student updates a second, agents beside uniform, each with the env keywords it declares. In: names. Out: a comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kd_env.benchmark.run_trial import teach
from kd_env.policies import registry
from speed.measure import Row, Subject, compare
from speed.updates import slots

NAMES = ("uniform", "reinforce", "gradient_credit", "sb3:PPO")


def agents(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Learn while teaching; a block is a fresh student of ``count`` updates, a whole number of PPO's rollouts of 16."""
    subjects = [Subject(name, _teaching(name, task, device, count), count) for name in NAMES]
    return compare(f"Policies that learn while they teach: {task}", subjects, "updates/s", turns)


def _teaching(name: str, task: str, device: torch.device, count: int) -> Callable[[], object]:
    found = registry.find(name)
    chosen: dict[str, Any] = {"reward_every": 1, **found.env_options}
    chosen.pop("granularity", None)
    env = slots(task, device, autoreset_mode="same_step", **chosen)
    policy = found.build(env, 0)
    return lambda: teach(env, [policy], [0])
