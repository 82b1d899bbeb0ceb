"""The hard examples that MMKD's meta steps learn from (Zhang et al. 2023, arXiv 2306.06634).

In: rows of mini-batches, and which of them the student got wrong. Out: rows to learn from. The buffer first fills with all examples; after
that, each example that the student gets wrong replaces a random one.
"""

from __future__ import annotations

import numpy as np

from kd_env import spec


class HardBuffer:
    """Holds up to ``capacity`` rows of a split; the same example may occur more than once."""

    def __init__(self, capacity: int, seed: int) -> None:
        """Start empty."""
        spec.numbers("mmkd", least=1, whole=True, buffer=capacity)
        self.capacity, self.rng = capacity, np.random.default_rng(seed)
        self.rows = np.zeros(0, dtype=np.int64)

    def put(self, rows: np.ndarray, wrong: np.ndarray) -> None:
        """Add a mini-batch: ``rows [B]``, and which of them the student got ``wrong [B]``."""
        room = self.capacity - len(self.rows)
        if room > 0:
            self.rows = np.concatenate([self.rows, rows[:room]])
            return
        hard = rows[wrong][: self.capacity]
        self.rows[self.rng.choice(self.capacity, len(hard), replace=False)] = hard

    def sample(self, count: int) -> np.ndarray:
        """Return ``count`` of the rows, each at most once if there are enough."""
        assert len(self.rows), "the buffer is empty"
        return self.rng.choice(self.rows, count, replace=len(self.rows) < count)

    def clear(self) -> None:
        """Remove all rows, before another student."""
        self.rows = np.zeros(0, dtype=np.int64)
