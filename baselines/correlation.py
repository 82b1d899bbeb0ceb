"""``correlation``: teachers whose probabilities correlate with the student's weigh more. A surrogate of ours, after CG-MTKD.

``w_k`` is proportional to ``exp(corr(p_k, q) / t)``, with Pearson's correlation over the C classes, 0 where either is constant. CG-MTKD's
formula could not be read; the sharpness ``t`` is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.rule import BaseRule
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace

ROUNDING = 1e-12
"""Probabilities whose distance from their mean has a smaller norm count as constant."""


def weights(teacher_logits: Tensor, student_logits: Tensor, t: float = 0.5) -> Tensor:
    """Return weights, ``[B, K, C]``, ``[B, C]`` (both divided by the temperature) -> ``[B, K]``, rows on the simplex; 1 at K = 1.

    Raises:
        ValueError: ``t`` is not above 0.
    """
    if not 0.0 < t < math.inf:
        raise ValueError(f"correlation needs a finite t above 0, got {t}")
    teachers, student = _centred(teacher_logits), _centred(student_logits)[:, None]  # [B, K, C], [B, 1, C]
    return ((teachers * student).sum(2) / t).softmax(1).to(teacher_logits.dtype)


def _centred(logits: Tensor) -> Tensor:
    """Return probabilities minus their mean over the classes, scaled to norm 1; zero where they are constant."""
    probabilities = logits.double().softmax(-1)
    centred = probabilities - probabilities.mean(-1, keepdim=True)
    norm = centred.norm(dim=-1, keepdim=True)
    return torch.where(norm > ROUNDING, centred / norm, 0.0)


class Correlation(BaseRule):
    """Reads the outputs of teachers and student at the temperature of the response loss."""

    access = "student outputs"
    search_space: SearchSpace = {"t": Range(0.05, 2.0, log=True)}

    def __init__(self, context: PolicyContext, seed: int = 0, t: float = 0.5) -> None:
        """Take the sharpness ``t``: the smaller it is, the more weight the best-correlated teacher has."""
        super().__init__(context, seed)
        spec.numbers("correlation", above=0, t=t)
        self.t = t

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return :func:`weights` of the mini-batch."""
        temperature = self.context.settings.distillation.temperature
        return weights(batch.teacher_logits / temperature, batch.student.logits / temperature, self.t)
