"""What a decision was worth: from credit to pay. In: the worth of every teacher and type at strength 1. Out: pay, and the credit to show.

Row axes are instances, or students where one decision serves a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_env.envs.credit import CreditOfTypes, normalize, scale
from kd_env.types import Decision

Worth = tuple[Tensor, dict[str, Tensor]]
"""Pay ``[rows]``, and by its name in ``info`` what was credited."""


def of_teachers(given: CreditOfTypes, decision: Decision, normal: bool) -> Worth:
    """Teacher selection: all types together, ``[S * B, K]``; centred and scaled over the teachers of each instance if ``normal``."""
    weights = next(iter(decision.weights.values()))
    credit = torch.stack([decision.strengths[name] * one for name, one in given.items()]).sum(0)
    credit = normalize(credit) if normal else credit
    return (weights * credit).sum(1), {"credit": credit}


def scaled(by_pair: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Worth of teachers by type ``[rows, M, K]`` and of the label ``[rows, 1 or 0]``, scaled together."""
    both = scale(torch.cat([by_pair.flatten(1), label], 1))
    return both[:, : by_pair[0].numel()].view_as(by_pair), both[:, by_pair[0].numel() :]


def of_types(by_pair: Tensor, label: Tensor, weights: Tensor, gates: Tensor) -> Worth:
    """Knowledge selection: each type as the teachers' ``weights [rows, K]`` mix it, times its gate ``[rows, M]``."""
    by_type = _by_type(by_pair, label, weights)
    return (gates * by_type).sum(1), {"credit": by_type}


def of_both(by_pair: Tensor, label: Tensor, weights: Tensor, gates: Tensor, kd_weight: Tensor) -> Worth:
    """Joint selection: types that are on, ``strength [rows]`` for the teachers', the rest for the label."""
    by_type = _by_type(by_pair, label, weights)
    share = torch.stack([kd_weight] * by_pair.shape[1] + [1.0 - kd_weight] * label.shape[1], 1)  # [rows, M]
    by_teacher = (gates[:, : by_pair.shape[1], None] * by_pair).sum(1)  # [rows, K]
    return (share * gates * by_type).sum(1), {"credit": by_teacher, "knowledge_credit": by_type}


def _by_type(by_pair: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    return torch.cat([(by_pair * weights[:, None]).sum(2), label], 1)  # [rows, M]
