"""The hard examples that MMKD's meta steps learn from (Zhang et al. 2023, arXiv 2306.06634).

In: rows of mini-batches, and which of them the student got wrong. Out: rows to learn from. It fills up with whatever passes; from then on
an example that the student gets wrong takes the place of a random one.
"""

from __future__ import annotations

import numpy as np

from kd_env import spec


class HardBuffer:
    """Up to ``capacity`` rows of a split; the same example may be there more than once."""

    def __init__(self, capacity: int, seed: int) -> None:
        """Begin empty."""
        spec.numbers("mmkd", least=1, whole=True, buffer=capacity)
        self.capacity, self.rng = capacity, np.random.default_rng(seed)
        self.rows = np.zeros(0, dtype=np.int64)

    def put(self, rows: np.ndarray, wrong: np.ndarray) -> None:
        """Take in a mini-batch: ``rows [B]``, and which of them the student got ``wrong [B]``."""
        room = self.capacity - len(self.rows)
        if room > 0:
            self.rows = np.concatenate([self.rows, rows[:room]])
            return
        hard = rows[wrong][: self.capacity]
        self.rows[self.rng.choice(self.capacity, len(hard), replace=False)] = hard

    def sample(self, count: int) -> np.ndarray:
        """``count`` of the rows, each at most once where there are so many."""
        assert len(self.rows), "nothing was put in yet"
        return self.rng.choice(self.rows, count, replace=len(self.rows) < count)

    def clear(self) -> None:
        """Begin again, with another student."""
        self.rows = np.zeros(0, dtype=np.int64)
