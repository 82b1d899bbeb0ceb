"""``dev_weighted``: fixed weights by dev score, RL-KD's W-Ensemble (Yuan et al. 2021, arXiv 2012.06048).

``w_k`` in proportion to teacher k's accuracy on the labelled reward examples. What the paper's score and scale are is left open there:
accuracy whatever the task's metric, divided by the sum, is our reading.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from baselines.reward_split import teacher_logits_and_labels
from baselines.rule import Weighting
from kd_env.types import Batch


def weights(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """``[n, K, C]``, ``[n]`` -> ``[K]``, on the simplex; uniform where nobody is ever right, ones at K = 1."""
    accuracy = (teacher_logits.argmax(2) == labels[:, None]).double().mean(0)  # [K]
    accuracy = accuracy if bool(accuracy.any()) else torch.ones_like(accuracy)
    return (accuracy / accuracy.sum()).to(teacher_logits.dtype)


class DevWeighted(Weighting):
    """Scores the teachers once, before the first update."""

    access = "reward labels"
    learns_from = "reward labels, once"
    paper = "Yuan et al. 2021, arXiv 2012.06048"

    def __init__(self, env: Any, seed: int = 0) -> None:
        """Score the teachers on the reward labels."""
        super().__init__(env, seed)
        self.teacher_weights = weights(*teacher_logits_and_labels(self.selection))  # [K]

    def weigh(self, features: Batch) -> Tensor:
        """The same weights for every instance."""
        return self.teacher_weights.expand(len(features.labels), -1)
