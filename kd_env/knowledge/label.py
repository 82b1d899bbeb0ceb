"""``label``: the hard label, plain cross-entropy (AKD's FinK).

It uses no teacher, so this module has functions instead of a ``Knowledge``.

If the label of an example is unknown (-1), the cross-entropies of the student and of all teachers are 0. No student learns from its label,
and no teacher looks better than another.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.types import ModelOutput

UNKNOWN = -1


def loss(student: ModelOutput, target: Tensor) -> Tensor:
    """Return the student's cross-entropy on the labels ``target [B]``, ``[B]``, always at temperature 1."""
    return ce(student.logits, target)


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example; ``logits [B, C]``, ``labels [B]`` -> ``[B]``."""
    return cross_entropy(logits, labels, reduction="none", ignore_index=UNKNOWN)


def teacher_ce(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return each teacher's cross-entropy on the label at temperature 1; ``[B, K, C]``, ``[B]`` -> ``[B, K]``."""
    index = labels.clamp_min(0)[:, None, None].expand(-1, teacher_logits.shape[1], 1)
    cross_entropies = -teacher_logits.log_softmax(2).gather(2, index).squeeze(2)
    return torch.where((labels == UNKNOWN)[:, None], 0.0, cross_entropies)
