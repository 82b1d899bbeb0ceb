"""``oracle``: the teacher known by construction to be the one of each instance's group.

Of a built-in pool it is the best one, and the oracle the ceiling of a table; of a pool of one's own it is the one that was taught the group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from baselines.rule import Choice
from kd_env.errors import InputError
from kd_env.types import Features


class Oracle(Choice):
    """Reads the groups and what the pool knows about them."""

    access = "privileged"

    def __init__(self, env: Any, seed: int = 0) -> None:
        """Look up the best teacher of each training example."""
        super().__init__(env, seed)
        pool, groups = self.selection.pool, self.selection.material.task.train.groups
        if pool.best_for_group is None or groups is None:
            raise InputError(f"policy oracle: nobody knows the best teachers of pool {pool.name!r}; leave the oracle out")
        self.best = np.array(pool.best_for_group)[groups]

    def choose(self, features: Features) -> np.ndarray:
        """``[B]``."""
        chosen: np.ndarray = self.best[features.example_ids]
        return chosen
