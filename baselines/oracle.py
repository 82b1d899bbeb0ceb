"""``oracle``: the teacher known by construction to be the one of each instance's group.

Of a built-in pool that is the best one, and the oracle the ceiling of a table; of a pool of one's own it is who was taught the group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from baselines.rule import Choosing
from kd_env.errors import InputError
from kd_env.types import Batch


class Oracle(Choosing):
    """Reads the groups and what the pool knows about them."""

    access = "privileged"
    paper = ""

    def __init__(self, env: Any, seed: int = 0) -> None:
        """Look up the best teacher of each training example."""
        super().__init__(env, seed)
        pool, task = self.selection.pool, self.selection.data.task
        groups = task.train.groups
        if pool.best_for_group is None or groups is None:
            raise InputError(f"policy oracle: nobody knows the best teachers of pool {pool.name!r}; leave the oracle out")
        if task.unlabelled and groups.min() < 0:
            raise InputError(
                f"policy oracle: unlabelled examples of task {task.name!r} have no group; give them one, or leave the oracle out"
            )
        self.best = np.array(pool.best_for_group)[groups]

    def choose(self, features: Batch) -> np.ndarray:
        """``[B]``."""
        chosen: np.ndarray = self.best[features.example_ids]
        return chosen
