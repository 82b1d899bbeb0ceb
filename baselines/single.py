"""``single:k`` and ``random_single`` (RL-KD's Rand-Single): one teacher for the whole mini-batch."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from baselines.rule import ONE, BaseRule, choice
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.types import Observation


class Single(BaseRule):
    """Always the same teacher."""

    env_options = ONE

    def __init__(self, context: PolicyContext, seed: int = 0, teacher: int | str = 0) -> None:
        """Take the teacher by index or by name."""
        super().__init__(context, seed)
        names = context.teacher_names
        index = names.index(teacher) if teacher in names else teacher
        if not isinstance(index, int) or not 0 <= index < len(names):
            raise InputError(f"single:{teacher}: expected 0..{len(names) - 1} or one of {', '.join(names)}")
        self.index = index

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return weight 1 for the teacher."""
        return choice(np.full(batch.num_rows, self.index), batch.num_teachers)


class RandomSingle(BaseRule):
    """One random teacher per mini-batch."""

    env_options = ONE

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Draw a teacher for the whole mini-batch."""
        return choice(np.full(batch.num_rows, self.rng.integers(batch.num_teachers)), batch.num_teachers)

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return 1: every teacher is equally likely."""
        return np.ones(len(observation["progress"]))
