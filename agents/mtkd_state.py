"""The state of a mini-batch for MTKD-RL's agent (Yang et al. 2025, AAAI, arXiv 2502.18510), and the mean of its weights and two rules.

In: a mini-batch about to be taught. Out: a :class:`State`, and the weights that teach, from a head of the agent.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from baselines import camkd
from baselines.compared_features import hint_of, mapped_features, pooled_features
from kd_env.knowledge.label import teacher_ce
from kd_env.policies import PolicyBatch, PolicyContext


class State(NamedTuple):
    """The state of B instances and K teachers, without gradient."""

    columns: Tensor  # [B, F]: each teacher's features, logits, c_k, similarity and gap, side by side
    rule: Tensor  # [B, K], CA-MKD's weights
    gaps: dict[str, Tensor]  # [B, K] by knowledge type: for response KL_k, for hints the similarity


@torch.no_grad()
def state_of(context: PolicyContext, batch: PolicyBatch) -> State:
    """Return the state of a mini-batch: teacher k's columns are ``[F_k; z_k; c_k; cos(r_k(F_S), F_k); KL_k]``, F = sum of D_k + C + 3.

    Widths differ, so the cosine takes the student's features mapped to teacher k's width, as ``hint`` compares them, or the means over
    positions of the maps that ``map_hint`` compares, as released; without these types it is 0. ``KL_k`` is ``tau^2 KL(p_k || q)`` at the
    setting's temperature.
    """
    output, name = context.student.output(), hint_of(context)
    ce = teacher_ce(batch.teacher_logits, batch.labels)  # [B, K]
    gap = context.student.per_teacher_loss("response", output, context.student.observed())  # [B, K]
    similarity = torch.zeros_like(gap)  # [B, K]
    if name is not None:
        pairs = zip(mapped_features(context, name, output), pooled_features(context, name, batch), strict=True)
        similarity = torch.stack([cosine_similarity(*pair) for pair in pairs], 1)
    numbers = torch.stack([ce, similarity, gap], 2)  # [B, K, 3]
    parts = [[features, batch.teacher_logits[:, k], numbers[:, k]] for k, features in enumerate(batch.teacher_features)]
    columns = torch.cat([part for teacher in parts for part in teacher], 1)
    rule = camkd.weights(batch.teacher_logits, batch.labels)
    return State(columns, rule, {"response": gap} if name is None else {"response": gap, name: similarity})


def averaged(head: Tensor, rule: Tensor, gap: Tensor, shares: Tensor | None = None) -> Tensor:
    """Return ``(head + rule + softmax_k(gap)) / 3``, ``[B, K]``; as released, a larger gap or similarity means more weight.

    Args:
        head: weights of the agent's head.
        rule: CA-MKD's weights.
        gap: distances or similarities of teachers and student.
        shares: numbers ``[3]`` whose softmax are the shares of the three, in place of a third each.
    """
    if shares is None:
        return (head + rule + gap.softmax(1)) / 3.0
    parts = shares.softmax(0)
    return parts[0] * head + parts[1] * rule + parts[2] * gap.softmax(1)
