"""``oracle``: the teacher known by construction to be the one of each instance's group.

Of a built-in pool that is the best one, and the oracle the ceiling of a table; of a pool of one's own it is who was taught the group.
"""

from __future__ import annotations

from torch import Tensor

from baselines.rule import ONE, Rule, choice
from kd_env.policies import PolicyBatch, PolicyContext


class Oracle(Rule):
    """Reads the groups, and what is known about the pool."""

    access = "privileged"
    paper = ""
    env_options = ONE

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Look up the best teacher of each training example."""
        super().__init__(context, seed)
        self.best = context.best_teachers()

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Choose the best teacher of each instance."""
        return choice(self.best[batch.example_ids], batch.num_teachers)
