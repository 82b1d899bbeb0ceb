"""``response``: soft labels (AKD's ResK); Hinton et al. 2015, arXiv 1503.02531.

``tau^2 KL(p_k || q)`` at temperature ``tau``: a real KL, zero at equality, whose gradient keeps its size as ``tau`` grows.
"""

from __future__ import annotations

from torch import Tensor

from kd_env.types import ModelOutput


def target(teacher: ModelOutput) -> Tensor:
    """The teacher's logits ``[..., C]``."""
    return teacher.logits


def every_teacher(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """:func:`loss` of each teacher, ``[B, C]``, ``[B, K, C]`` -> ``[B, K]``."""
    return loss(ModelOutput(student_logits[:, None], student_logits[:, None]), teacher_logits, temperature)


def loss(student: ModelOutput, target: Tensor, temperature: float) -> Tensor:
    """KL from teacher logits ``target [..., C]`` to the student's, times ``temperature**2`` -> ``[...]``; leading axes broadcast."""
    log_p = (target / temperature).log_softmax(-1)
    log_q = (student.logits / temperature).log_softmax(-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
