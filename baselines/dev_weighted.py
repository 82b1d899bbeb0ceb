"""``dev_weighted``: fixed weights by dev score, RL-KD's W-Ensemble (Yuan et al. 2021, arXiv 2012.06048).

``w_k`` is proportional to teacher k's accuracy on the labelled reward examples. The paper does not state its score and scale: accuracy,
whatever the task's metric, divided by the sum is our reading.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import BaseRule
from kd_env.policies import PolicyBatch, PolicyContext


def weights(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return weights, ``[n, K, C]``, ``[n]`` -> ``[K]``, on the simplex; uniform if no teacher is ever right, 1 at K = 1."""
    accuracy = (teacher_logits.argmax(2) == labels[:, None]).double().mean(0)  # [K]
    accuracy = accuracy if bool(accuracy.any()) else torch.ones_like(accuracy)
    return (accuracy / accuracy.sum()).to(teacher_logits.dtype)


class DevWeighted(BaseRule):
    """Scores the teachers once, before the first update."""

    access = "reward labels"
    learns_from = "reward labels, once"
    paper = "Yuan et al. 2021, arXiv 2012.06048"

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Score the teachers on the reward labels."""
        super().__init__(context, seed)
        examples = context.reward_examples()
        self.teacher_weights = weights(examples.teacher_logits, examples.known_labels())  # [K]

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the same weights for every instance."""
        return self.teacher_weights.expand(batch.num_rows, -1)
