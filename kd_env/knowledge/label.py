"""``label``: the hard label, plain cross-entropy (AKD's FinK). It asks no teacher, so it is two functions and no ``Knowledge``."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.types import ModelOutput


def loss(student: ModelOutput, target: Tensor) -> Tensor:
    """CE of the student against labels ``target [B]`` -> ``[B]``, at temperature 1 whatever the student's."""
    return cross_entropy(student.logits, target, reduction="none")


def teacher_ce(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """c_k: each teacher's cross-entropy on the label at temperature 1; ``[B, K, C]``, ``[B]`` -> ``[B, K]``."""
    index = labels[:, None, None].expand(-1, teacher_logits.shape[1], 1)
    return -teacher_logits.log_softmax(2).gather(2, index).squeeze(2)
