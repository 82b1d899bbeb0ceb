"""The hard examples that MMKD's meta steps learn from (Zhang et al. 2023, arXiv 2306.06634).

In: positions of the examples of mini-batches, and which of them the student got wrong. Out: positions to learn from. The buffer first
fills with all examples. After that, each example that the student gets wrong replaces a random one.
"""

from __future__ import annotations

import numpy as np

from kd_env import spec


class HardBuffer:
    """Holds up to ``capacity`` positions in a split; the same example may occur more than once."""

    def __init__(self, capacity: int, seed: int) -> None:
        """Start empty."""
        spec.numbers("mmkd", least=1, whole=True, buffer=capacity)
        self.capacity, self.rng = capacity, np.random.default_rng(seed)
        self.positions = np.zeros(0, dtype=np.int64)

    def put(self, positions: np.ndarray, wrong: np.ndarray) -> None:
        """Add a mini-batch: ``positions [B]``, and which of them the student got ``wrong [B]``."""
        room = self.capacity - len(self.positions)
        if room > 0:
            self.positions = np.concatenate([self.positions, positions[:room]])
            return
        hard = positions[wrong][: self.capacity]
        self.positions[self.rng.choice(self.capacity, len(hard), replace=False)] = hard

    def sample(self, count: int) -> np.ndarray:
        """Return ``count`` of the positions, each at most once if there are enough."""
        assert len(self.positions), "the buffer is empty"
        return self.rng.choice(self.positions, count, replace=len(self.positions) < count)

    def clear(self) -> None:
        """Remove all positions, before another student."""
        self.positions = np.zeros(0, dtype=np.int64)
