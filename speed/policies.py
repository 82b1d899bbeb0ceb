"""Compare the student updates per second of learned policies with uniform, each with the env keywords that it declares.

In: a task's name. Out: rows of a comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kd_env.benchmark.run_trial import teach
from kd_env.policies import registry
from speed.measure import Row, Subject, compare
from speed.updates import slots

NAMES = ("uniform", "reinforce", "gradient_credit", "sb3:PPO")


def learned_policies(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Time policies that learn during the run. A block trains a new student for ``count`` updates, a multiple of 16, PPO's rollout."""
    subjects = [Subject(name, _teaching(name, task, device, count), count) for name in NAMES]
    return compare(f"Policies that learn while they teach: {task}", subjects, "updates/s", turns)


def _teaching(name: str, task: str, device: torch.device, count: int) -> Callable[[], object]:
    policy_class = registry.find(name)
    options: dict[str, Any] = {"reward_every": 1, **policy_class.env_options}
    options.pop("granularity", None)
    env = slots(task, device, autoreset_mode="same_step", **options)
    policy = policy_class.build(env, 0)
    return lambda: teach(env, [policy], [0])
