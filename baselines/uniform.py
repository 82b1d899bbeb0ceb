"""``uniform`` (AVER, RL-KD's U-Ensemble): every teacher 1/K, always. The floor of every table."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import Weighting
from kd_env.types import Batch


class Uniform(Weighting):
    """1/K."""

    def weigh(self, features: Batch) -> Tensor:
        """``[B, K]`` of 1/K."""
        count = features.teacher_logits.shape[1]
        return torch.full(features.teacher_logits.shape[:2], 1.0 / count)
