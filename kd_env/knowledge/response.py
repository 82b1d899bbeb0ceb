"""``response``: soft labels (AKD's ResK); Hinton et al. 2015, arXiv 1503.02531.

``tau^2 KL(p_k || q)`` at the student's temperature ``tau``: a real KL, zero at equality, whose gradient keeps its size as ``tau`` grows.
Hinton et al. minimise the cross-entropy with ``p_k``, which is larger by the entropy of ``p_k``; the gradient is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class Response(Knowledge):
    """The teacher's softened probabilities."""

    needs: ClassVar[Part] = "logits"
    rowwise: ClassVar[bool] = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's logits ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """KL from teacher logits ``target [..., C]`` to the student's, times ``tau^2`` -> ``[...]``; leading axes broadcast."""
        temperature = student.temperature
        return squared(temperature) * kl(target / temperature, student.logits / temperature)


def per_teacher(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Response loss of each teacher, ``[B, C]``, ``[B, K, C]`` -> ``[B, K]``."""
    student = ModelOutput(student_logits[:, None], student_logits[:, None], temperature=temperature)
    return Response().loss(student, teacher_logits)


def kl(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """``KL(softmax(teacher) || softmax(student))`` over the last axis, ``[..., C]`` -> ``[...]``; leading axes broadcast."""
    log_p, log_q = teacher_logits.log_softmax(-1), student_logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def squared(temperature: float | Tensor) -> float | Tensor:
    """``tau^2``, of a tensor ``[..., 1]`` without its last axis, so that it multiplies a loss ``[...]``."""
    return temperature.squeeze(-1) ** 2 if isinstance(temperature, Tensor) else temperature**2
