"""``camkd``: Confidence-Aware Multi-teacher KD (Zhang et al. 2022, arXiv 2201.00007), the logit weights.

``w_k = (1 - softmax_k(c)) / (K - 1)``, c_k the teacher's cross-entropy on the label. The released loss divides by K once more; here the
weights sum to 1 (``scale="matched"``), so that weighting is not confounded with strength.
"""

from __future__ import annotations

from torch import Tensor

from baselines.rule import Weighting
from kd_env.knowledge.label import teacher_ce
from kd_env.types import Features


def weights(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """``[B, K, C]``, ``[B]`` -> ``[B, K]``, rows on the simplex.

    Raises:
        ValueError: K is 1.
    """
    count = teacher_logits.shape[1]
    if count < 2:
        raise ValueError("camkd needs at least two teachers: with one, (1 - softmax) / (K - 1) is 0 / 0")
    return (1.0 - teacher_ce(teacher_logits, labels).softmax(1)) / (count - 1)


class CAMKD(Weighting):
    """Reads the training labels."""

    access = "train labels"
    paper = "Zhang et al. 2022, arXiv 2201.00007"
    min_teachers = 2

    def weigh(self, features: Features) -> Tensor:
        """:func:`weights` of the mini-batch."""
        return weights(features.teacher_logits, features.labels)
