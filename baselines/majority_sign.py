"""``majority_sign``: average the teachers that pull the student in the direction of the majority. A surrogate of ours, after GOVERN.

In GOVERN (Zhou et al. 2024, arXiv 2405.03764) teachers vote on the orientation of the gradient, without labels. Its formula could not be
read, only the abstract; ours, for each instance: teacher k pulls class c up or down by ``d_kc = p_kc - q_c`` (minus the gradient of
its KL on the student's logits, divided by the temperature). The vote on class c is the sign that more teachers have there, 0 in a tie. A
teacher agrees when at least half of ``sum_c |d_kc|``, over classes that are not tied, has the vote's sign: ``sum_c d_kc vote_c >= 0`` up
to rounding. Teachers that agree share the weight equally; if none agrees, all teachers share it. Of two teachers neither outvotes the
other, so their weights are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import BaseRule
from kd_env.policies import PolicyBatch

ROUNDING = 1e-12
"""Pulls below this have no sign: a teacher that equals the student does not vote. Sums that are less than this below 0 count as 0."""


def weights(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Return weights, ``[B, K, C]``, ``[B, C]`` (both divided by the temperature) -> ``[B, K]``, rows on the simplex; 1 at K = 1."""
    pull = teacher_logits.double().softmax(2) - student_logits.double().softmax(1)[:, None]  # [B, K, C]
    pull = torch.where(pull.abs() > ROUNDING, pull, 0.0)
    vote = pull.sign().sum(1, keepdim=True).sign()  # [B, 1, C]
    agrees = ((pull * vote).sum(2) >= -ROUNDING).to(teacher_logits.dtype)  # [B, K]
    agrees = torch.where(agrees.any(1, keepdim=True), agrees, 1.0)
    return agrees / agrees.sum(1, keepdim=True)


class MajoritySign(BaseRule):
    """Reads the outputs of teachers and student at the temperature of the response loss."""

    access = "student outputs"

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return :func:`weights` of the mini-batch."""
        temperature = self.context.settings.distillation.temperature
        return weights(batch.teacher_logits / temperature, batch.student.logits / temperature)
