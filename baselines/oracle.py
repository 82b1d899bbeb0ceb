"""``oracle``: for each instance, the teacher that is known to be best from how the pool was made.

In a built-in pool it is the best teacher of the instance's group or class, or of all instances, so the oracle is the upper bound of a
table; in a pool of your own it is the teacher that was trained on the group. If the teachers change during a run, the oracle follows.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from baselines.rule import ONE, BaseRule, choice
from kd_env.policies import PolicyBatch, PolicyContext


class Oracle(BaseRule):
    """Reads the groups and the labels of the examples, and what is known about the pool."""

    access = "privileged"
    env_options = ONE

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Check that the best teachers are known."""
        super().__init__(context, seed)
        context.best_teachers()

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Choose the best teacher of each instance."""
        students = zip(batch.progress, np.split(batch.example_ids, len(batch.progress)), strict=True)
        best = [self.context.best_teachers(float(progress))[example_ids] for progress, example_ids in students]
        return choice(np.concatenate(best), batch.num_teachers)
