"""``oracle``: for each instance, the teacher of its group, which is known from how the pool was made.

In a built-in pool that is the best teacher, so the oracle is the upper bound of a table; in a pool of your own it is the teacher that was
trained on the group.
"""

from __future__ import annotations

from torch import Tensor

from baselines.rule import ONE, Rule, choice
from kd_env.policies import PolicyBatch, PolicyContext


class Oracle(Rule):
    """Reads the groups of the examples and what is known about the pool."""

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
