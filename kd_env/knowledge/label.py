"""``label``: the hard label, plain cross-entropy (AKD's FinK). It asks no teacher, so it is functions and no ``Knowledge``.

An example whose label is unknown, -1, has a cross-entropy of 0, the student's and every teacher's: no student learns from it, and no
teacher looks better than another there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.types import ModelOutput

UNKNOWN = -1


def loss(student: ModelOutput, target: Tensor) -> Tensor:
    """Return the student's cross-entropy on labels ``target [B]``, ``[B]``, at temperature 1 whatever the decision's."""
    return ce(student.logits, target)


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each example, ``[B, C]``, ``[B]`` -> ``[B]``."""
    return cross_entropy(logits, labels, reduction="none", ignore_index=UNKNOWN)


def teacher_ce(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return c_k, each teacher's cross-entropy on the label at temperature 1; ``[B, K, C]``, ``[B]`` -> ``[B, K]``."""
    index = labels.clamp_min(0)[:, None, None].expand(-1, teacher_logits.shape[1], 1)
    cross_entropies = -teacher_logits.log_softmax(2).gather(2, index).squeeze(2)
    return torch.where((labels == UNKNOWN)[:, None], 0.0, cross_entropies)
