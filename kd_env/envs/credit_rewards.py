"""Turn credit into rewards. In: a decision, and the credit of each teacher and knowledge type at strength 1. Out: rewards.

The first axis is instances (S * B), or slots, where a slot decides about a whole mini-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_env.envs.credit import CreditByType
from kd_env.envs.credit_scale import normalize, scale
from kd_env.types import Decision, DecodedAction

CreditReward = tuple[Tensor, dict[str, Tensor]]
"""Reward per instance, ``[S * B]``, or per slot, ``[slots]``; and the credit that ``info`` shows, by name."""


@dataclass(frozen=True)
class CreditOfStep:
    """The values from which a kind of action computes a reward. The first axis is instances (S * B), or slots after :func:`slot_means`.

    Attributes:
        by_type: credit of each knowledge type at strength 1, ``[S * B, K]`` (``label``: ``[S * B, 1]``).
        decision: decision about the loss.
        decoded: decoded action behind the decision, of all slots.
        strengths: strength of each knowledge type in the setting.
        kd_weight: ``kd_weight`` of the setting.
        normalize: whether credit is normalised.
        num_slots: number of slots.
    """

    by_type: CreditByType
    decision: Decision
    decoded: DecodedAction
    strengths: dict[str, float]
    kd_weight: float
    normalize: bool
    num_slots: int

    def tensor(self, values: np.ndarray) -> Tensor:
        """Return an array of the decoded action as a tensor with the type and device of the credit."""
        return torch.tensor(values).to(next(iter(self.by_type.values())))


def slot_means(values: Tensor, num_slots: int) -> Tensor:
    """Return the means over the instances of each slot, ``[S * B, ...]`` or ``[slots, ...]`` -> ``[slots, ...]``."""
    return values if len(values) == num_slots else values.reshape(num_slots, -1, *values.shape[1:]).mean(1)


def teacher_reward(by_type: CreditByType, decision: Decision, normal: bool) -> CreditReward:
    """Return reward and credit of teacher selection: the sum over the types, ``[S * B, K]``, normalised if ``normal``."""
    weights = next(iter(decision.weights.values())).detach()
    credit = torch.stack([_column(decision.strengths.get(name, 0.0)) * values for name, values in by_type.items()]).sum(0)
    credit = normalize(credit) if normal else credit
    return (weights * credit).sum(1), {"credit": credit}


def _column(strength: float | Tensor) -> float | Tensor:
    """Return a strength, a number or ``[S * B]``, so that it multiplies ``[S * B, K]``."""
    return strength.detach()[..., None] if isinstance(strength, Tensor) else strength


def pairs_and_label(credit: CreditOfStep) -> tuple[Tensor, Tensor]:
    """Return the credit of the teachers by type, ``[slots, M, K]``, and of the label, ``[slots, 1 or 0]``.

    If credit is normalised, they are scaled together.
    """
    pairs = slot_means(torch.stack([strength * credit.by_type[name] for name, strength in credit.strengths.items()], 1), credit.num_slots)
    has_label = "label" in credit.by_type
    label = slot_means(credit.by_type["label"], credit.num_slots) if has_label else pairs.new_zeros(credit.num_slots, 0)
    if not credit.normalize:
        return pairs, label
    scaled = scale(torch.cat([pairs.flatten(1), label], 1))
    return scaled[:, : pairs[0].numel()].view_as(pairs), scaled[:, pairs[0].numel() :]


def knowledge_reward(pairs: Tensor, label: Tensor, weights: Tensor, gates: Tensor) -> CreditReward:
    """Return reward and credit of knowledge selection.

    Args:
        pairs: credit of the teachers by type, ``[slots, T, K]``, for the T types without the label.
        label: credit of the label, ``[slots, 1 or 0]``.
        weights: weights of the teachers, ``[slots, K]``.
        gates: factors of all M types, the label last, ``[slots, M]``.
    """
    by_type = _by_type(pairs, label, weights)
    return (gates * by_type).sum(1), {"credit": by_type}


def joint_reward(pairs: Tensor, label: Tensor, weights: Tensor, gates: Tensor, kd_weight: Tensor) -> CreditReward:
    """Return reward and credit of joint selection. ``kd_weight [slots]`` multiplies types with teachers, ``1 - kd_weight`` the label.

    :func:`knowledge_reward` describes the other arguments.
    """
    by_type = _by_type(pairs, label, weights)
    type_factor = torch.stack([kd_weight] * pairs.shape[1] + [1.0 - kd_weight] * label.shape[1], 1)  # [slots, M]
    by_teacher = (gates[:, : pairs.shape[1], None] * pairs).sum(1)  # [slots, K]
    return (type_factor * gates * by_type).sum(1), {"credit": by_teacher, "knowledge_credit": by_type}


def _by_type(pairs: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    return torch.cat([(pairs * weights[:, None]).sum(2), label], 1)  # [slots, M]
