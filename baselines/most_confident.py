"""``most_confident``: the teacher with the largest max-probability."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from baselines.rule import Choosing
from kd_env.types import Batch


def choose(teacher_logits: Tensor) -> Tensor:
    """``[B, K, C]`` -> the surest teacher ``[B]``, the first of equals."""
    return teacher_logits.log_softmax(2).amax(2).argmax(1)


class MostConfident(Choosing):
    """Whoever is surest."""

    access = "teacher outputs"
    paper = ""

    def choose(self, features: Batch) -> np.ndarray:
        """``[B]``."""
        chosen: np.ndarray = choose(features.teacher_logits).cpu().numpy()
        return chosen
