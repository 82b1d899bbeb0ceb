"""``uniform`` (AVER, RL-KD's U-Ensemble): all teachers have weight 1/K. The reference of all tables."""

from __future__ import annotations

from torch import Tensor

from baselines.rule import BaseRule, uniform
from kd_env.policies import PolicyBatch


class Uniform(BaseRule):
    """Weights of 1/K."""

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return weights of 1/K."""
        return uniform(batch)
