"""``uniform`` (AVER, RL-KD's U-Ensemble): every teacher 1/K, always. The floor of every table."""

from __future__ import annotations

from torch import Tensor

from baselines.rule import Rule, uniform
from kd_env.policies import PolicyBatch


class Uniform(Rule):
    """1/K."""

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return weights of 1/K."""
        return uniform(batch)
