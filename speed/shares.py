"""Measure the time of each part of an environment step, with one slot per instance. In: a task. Out: rows with time and share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from kd_env import tasks
from kd_env.bank.bank import KnowledgeBank
from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs import selection
from kd_env.student.student import Student
from speed.measure import Row, clock
from speed.updates import slots

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "forward": ((Student, "forward"),),
    "loss": ((Distillation, "per_example_loss"),),
    "backward and optimizer": ((Student, "step"),),
    "gather from the bank": ((KnowledgeBank, "gather"),),
    "observation": ((selection, "observe"),),
    "reward measurement": ((RewardMeter, "improvement"), (RewardMeter, "start")),
    "validation": ((Distillation, "validate"),),
}
"""Functions of each part. The time of a part that another part calls counts for the outer part."""

REST = "rest: order, inputs, decision, info"


class Stopwatch:
    """Measures the seconds spent in each part."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = False

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``function`` so that its time is added to ``part``, unless another part called it."""

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if self._within:
                return function(*arguments, **keywords)
            self._within, start = True, clock()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds[part] += clock() - start
                self._within = False

        return wrapped


def step(task: str, blocks: int) -> list[Row]:
    """Measure the share of each part on the CPU. On CUDA, the time would count for the part in which the CPU waits."""
    block_steps = tasks.load(task).defaults.updates // 20  # a block contains one validation, as by default
    env = slots(task, torch.device("cpu"), reward_every=1, validation_every=block_steps)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    for _ in range(50):
        env.step(action)
    watch = Stopwatch()
    seconds = np.empty((blocks, len(PARTS) + 2))  # per step: each part, the rest, the whole
    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        for block in range(blocks):
            watch.seconds.clear()
            start = clock()
            for _ in range(block_steps):
                env.step(action)
            total = clock() - start
            parts = [watch.seconds[part] for part in PARTS]
            seconds[block] = np.array([*parts, total - sum(parts), total]) / block_steps
    shares = seconds / seconds[:, -1:]
    title = f"Where a step goes: slots on {task}, dev_improvement every update"
    table = [Row(title, "whole step", "µs", float(np.median(seconds[:, -1])) * 1e6)]
    for column, name in enumerate([*PARTS, REST]):
        low, share, high = np.quantile(shares[:, column], (0.25, 0.5, 0.75)).tolist()
        table.append(Row(title, name, "µs", float(np.median(seconds[:, column])) * 1e6, share, low, high, "whole step"))
    return table
