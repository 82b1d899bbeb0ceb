"""``response``: soft labels (AKD's ResK); Hinton et al. 2015, arXiv 1503.02531.

The loss is ``tau^2 KL(p_k || q)`` at temperature ``tau``. It is zero at equality, and its gradient keeps its size as ``tau`` grows. Hinton
et al. minimise the cross-entropy with ``p_k``, which is larger by the entropy of ``p_k``; the gradient is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_env.knowledge.context import LossContext
from kd_env.knowledge.rowwise import RowwiseKnowledge
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class Response(RowwiseKnowledge):
    """Match the teacher's softened probabilities."""

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's logits ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the KL between teacher logits ``target [..., C]`` and the student at temperature 1, ``[...]``."""
        return self.loss_in_context(student, target, LossContext())

    def loss_in_context(self, student: ModelOutput, target: Tensor, context: LossContext) -> Tensor:
        """Return the KL between teacher logits ``target [..., C]`` and the student times ``tau^2``, ``[...]``; leading axes broadcast."""
        return tempered_kl(target, student.logits, context)


def tempered_kl(teacher_logits: Tensor, student_logits: Tensor, context: LossContext) -> Tensor:
    """Return ``tau^2 KL`` of the softened distributions, ``[..., C]`` -> ``[...]``; leading axes broadcast."""
    return context.temperature_squared * kl(teacher_logits / context.temperature, student_logits / context.temperature)


def per_teacher(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return the response loss of each teacher, ``[B, C]``, ``[B, K, C]`` -> ``[B, K]``."""
    return tempered_kl(teacher_logits, student_logits[:, None], LossContext(temperature))


def kl(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Return ``KL(softmax(teacher) || softmax(student))`` over the last axis, ``[..., C]`` -> ``[...]``; leading axes broadcast."""
    log_p, log_q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
