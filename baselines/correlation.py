"""``correlation``: teachers whose probabilities go with the student's weigh more. A surrogate of ours, after CG-MTKD.

``w_k`` in proportion to ``exp(corr(p_k, q) / t)``, corr Pearson's over the C classes, 0 where either is constant. CG-MTKD's own formula
could not be read; how sharp it is, ``t``, is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.rule import Rule
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext

ROUNDING = 1e-12
"""Probabilities that differ from their mean by less, in norm, are constant."""


def weights(teacher_logits: Tensor, student_logits: Tensor, t: float = 0.5) -> Tensor:
    """``[B, K, C]``, ``[B, C]``, both over the temperature where it is not 1 -> ``[B, K]``, rows on the simplex; ones at K = 1.

    Raises:
        ValueError: ``t`` is not above 0.
    """
    if not 0.0 < t < math.inf:
        raise ValueError(f"correlation needs a finite t above 0, got {t}")
    teachers, student = _centred(teacher_logits), _centred(student_logits)[:, None]  # [B, K, C], [B, 1, C]
    return ((teachers * student).sum(2) / t).softmax(1).to(teacher_logits.dtype)


def _centred(logits: Tensor) -> Tensor:
    """Probabilities less their mean over the classes, of norm 1, or all zero where they are constant."""
    probabilities = logits.double().softmax(-1)
    centred = probabilities - probabilities.mean(-1, keepdim=True)
    norm = centred.norm(dim=-1, keepdim=True)
    return torch.where(norm > ROUNDING, centred / norm, 0.0)


class Correlation(Rule):
    """Reads what the teachers and the student say, at the temperature of the response loss."""

    access = "student outputs"
    paper = ""

    def __init__(self, context: PolicyContext, seed: int = 0, t: float = 0.5) -> None:
        """Take the sharpness ``t``: the smaller, the more the best-correlated teacher has."""
        super().__init__(context, seed)
        spec.numbers("correlation", above=0, t=t)
        self.t = t

    def decide(self, batch: PolicyBatch) -> Tensor:
        """:func:`weights` of the mini-batch."""
        temperature = self.context.settings.distillation.temperature
        return weights(batch.teacher_logits / temperature, batch.student.logits / temperature, self.t)
