"""``single:k`` and ``random_single`` (RL-KD's Rand-Single): one teacher for the whole mini-batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from baselines.rule import Choosing
from kd_env.errors import InputError
from kd_env.types import Batch


class Single(Choosing):
    """Teacher ``teacher``, always."""

    def __init__(self, env: Any, seed: int = 0, teacher: int | str = 0) -> None:
        """Take the teacher by index or by name."""
        super().__init__(env, seed)
        names = self.selection.pool.names
        index = names.index(teacher) if teacher in names else teacher
        if not isinstance(index, int) or not 0 <= index < len(names):
            raise InputError(f"single:{teacher}: expected 0..{len(names) - 1} or one of {', '.join(names)}")
        self.index = index

    def choose(self, features: Batch) -> np.ndarray:
        """``[B]`` of the one index."""
        return np.full(len(features.example_ids), self.index)


class RandomSingle(Choosing):
    """One teacher a mini-batch, drawn evenly."""

    def choose(self, features: Batch) -> np.ndarray:
        """``[B]`` of the drawn index."""
        return np.full(len(features.example_ids), self.rng.integers(self.selection.num_teachers))
