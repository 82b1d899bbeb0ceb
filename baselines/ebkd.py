"""``ebkd``: entropy-based KD (Kwon et al. 2020, "Adaptive knowledge distillation based on entropy", ICASSP): confident teachers weigh more.

``w_k = (1 - h_k / sum_j h_j) / (K - 1)``, h_k the entropy of the teacher's probabilities at temperature 1.

``scale="matched"`` (ours): the weights sum to 1, with the strengths of the setting. ``scale="released"``: the term sums to (K - 1) / K and
the label has strength 1, whatever the setting's kd_weight.

Deviation: where all teachers are fully confident, the entropies are 0 and the release gives NaN; here the weights are uniform.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import BaseRule
from baselines.scale import Scale, check_scale, scaled
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.types import Decision


def weights(teacher_logits: Tensor) -> Tensor:
    """Return weights, ``[B, K, C]`` -> ``[B, K]``, rows on the simplex.

    Raises:
        ValueError: K is 1.
    """
    count = teacher_logits.shape[1]
    if count < 2:
        raise ValueError("ebkd needs at least two teachers: with one, (1 - h / h) / (K - 1) is 0 / 0")
    entropy = torch.special.entr(teacher_logits.double().softmax(2)).sum(2)  # [B, K]
    total = entropy.sum(1, keepdim=True)
    relative_entropy = torch.where(total > 0.0, entropy / total, 1.0 / count)
    return ((1.0 - relative_entropy) / (count - 1)).to(teacher_logits.dtype)


class EBKD(BaseRule):
    """Reads only the teachers' outputs."""

    access = "teacher outputs"
    paper = "Kwon et al. 2020, ICASSP"
    min_teachers = 2

    def __init__(self, context: PolicyContext, seed: int = 0, scale: Scale = "matched") -> None:
        """Take ``scale``, ``matched`` or ``released``."""
        super().__init__(context, seed)
        check_scale(context, "ebkd", scale)
        self.scale = scale

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return :func:`weights` of the mini-batch for all knowledge types, and the strengths."""
        entropy_weights, count = weights(batch.teacher_logits), self.context.num_teachers
        return scaled(self.context, dict.fromkeys(self.context.terms, entropy_weights), self.scale, (count - 1) / count)
