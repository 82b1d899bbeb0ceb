"""``best_single`` (RL-KD's Best-Single; Yuan et al. 2021, arXiv 2012.06048): per instance, the teacher with the lowest cross-entropy."""

from __future__ import annotations

import numpy as np

from baselines.rule import Choosing
from kd_env.knowledge.label import UNKNOWN, teacher_ce
from kd_env.types import Batch


class BestSingle(Choosing):
    """Reads the training labels."""

    access = "train labels"
    paper = "Yuan et al. 2021, arXiv 2012.06048"

    def choose(self, features: Batch) -> np.ndarray:
        """``[B]``, the first of equals; any teacher where the label is unknown."""
        chosen: np.ndarray = teacher_ce(features.teacher_logits, features.labels).argmin(1).cpu().numpy()
        unknown = (features.labels == UNKNOWN).cpu().numpy()
        if unknown.any():
            chosen[unknown] = self.rng.integers(features.teacher_logits.shape[1], size=unknown.sum())
        return chosen
