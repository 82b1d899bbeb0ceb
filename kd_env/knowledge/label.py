"""``label``: the hard label, plain cross-entropy (AKD's FinK)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.types import ModelOutput


def loss(student: ModelOutput, target: Tensor, temperature: float = 1.0) -> Tensor:
    """CE of the student at temperature 1 against labels ``target [B]`` -> ``[B]``; ``temperature`` does not apply."""
    return cross_entropy(student.logits, target, reduction="none")
