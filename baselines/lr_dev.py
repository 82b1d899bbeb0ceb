"""``lr_dev``: fixed weights by logistic regression on dev, RL-KD's LR-Dev-Ensemble (Yuan et al. 2021, arXiv 2012.06048).

The regression of ``lr_ensemble``, fitted on the labelled reward examples, which no teacher has memorised.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from baselines.lr_ensemble import weights
from baselines.reward_split import teacher_logits_and_labels
from baselines.rule import Weighting
from kd_env import spec
from kd_env.types import Batch


class LRDev(Weighting):
    """Fits once, before the first update, on the reward labels."""

    access = "reward labels"
    learns_from = "reward labels, once"
    paper = "Yuan et al. 2021, arXiv 2012.06048"

    def __init__(self, env: Any, seed: int = 0, ridge: float = 1e-3) -> None:
        """Fit on the reward examples that have labels."""
        spec.numbers("lr_dev", above=0, ridge=ridge)  # without one, perfect teachers have infinite coefficients
        super().__init__(env, seed)
        self.teacher_weights = weights(*teacher_logits_and_labels(self.selection), ridge)  # [K]

    def weigh(self, features: Batch) -> Tensor:
        """The same weights for every instance."""
        return self.teacher_weights.expand(len(features.labels), -1)
