"""``lr_dev``: fixed weights by logistic regression on dev, RL-KD's LR-Dev-Ensemble (Yuan et al. 2021, arXiv 2012.06048).

The regression of ``lr_ensemble``, fitted on the labelled reward examples, on which no teacher was trained.
"""

from __future__ import annotations

from torch import Tensor

from baselines.lr_ensemble import weights
from baselines.rule import BaseRule
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace


class LRDev(BaseRule):
    """Fits once, before the first update, on the reward labels."""

    access = "reward labels"
    learns_from = "reward labels, once"
    paper = "Yuan et al. 2021, arXiv 2012.06048"
    search_space: SearchSpace = {"ridge": Range(1e-5, 1e-1, log=True)}

    def __init__(self, context: PolicyContext, seed: int = 0, ridge: float = 1e-3) -> None:
        """Fit on the reward examples that have labels."""
        spec.numbers("lr_dev", above=0, ridge=ridge)  # at 0, coefficients of perfect teachers are infinite
        super().__init__(context, seed)
        examples = context.reward_examples()
        self.teacher_weights = weights(examples.teacher_logits, examples.known_labels(), ridge)  # [K]

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the same weights for every instance."""
        return self.teacher_weights.expand(batch.num_rows, -1)
