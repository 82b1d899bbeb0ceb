"""``majority_sign``: average the teachers who pull the student the way most teachers do. A surrogate of ours, after GOVERN.

GOVERN (Zhou et al. 2024, arXiv 2405.03764) lets teachers vote on the orientation of the gradient and averages the winners, without labels.
Its formula is not taken over; ours, for each instance: teacher k pulls class c up or down by ``d_kc = p_kc - q_c`` (minus the gradient of
its KL on the student's logits, over the temperature). The vote on class c is the sign that more teachers have there, 0 in a tie. A teacher
agrees when at least half of ``sum_c |d_kc|``, over classes that are not tied, has the vote's sign: ``sum_c d_kc vote_c >= 0``. Those who
agree share the weight equally; if nobody does, all teachers share it. Of two teachers, neither outvotes the other: that is uniform.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import Rule
from kd_env.policies import PolicyBatch

ROUNDING = 1e-12
"""Pulls below this have no sign: a teacher that equals the student votes for nothing."""


def weights(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """``[B, K, C]``, ``[B, C]``, both over the temperature where it is not 1 -> ``[B, K]``, rows on the simplex; ones at K = 1."""
    pull = teacher_logits.double().softmax(2) - student_logits.double().softmax(1)[:, None]  # [B, K, C]
    pull = torch.where(pull.abs() > ROUNDING, pull, 0.0)
    vote = pull.sign().sum(1, keepdim=True).sign()  # [B, 1, C]
    agrees = ((pull * vote).sum(2) >= 0.0).to(teacher_logits.dtype)  # [B, K]
    agrees = torch.where(agrees.any(1, keepdim=True), agrees, 1.0)
    return agrees / agrees.sum(1, keepdim=True)


class MajoritySign(Rule):
    """Reads what the teachers and the student say, at the temperature of the response loss."""

    access = "student outputs"
    paper = ""

    def decide(self, batch: PolicyBatch) -> Tensor:
        """:func:`weights` of the mini-batch."""
        temperature = self.context.settings.distillation.temperature
        return weights(batch.teacher_logits / temperature, batch.student.logits / temperature)
