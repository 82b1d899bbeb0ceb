"""``consistent_surrogate``: the hint loss after the teacher's channels are reordered; after KCD (Han et al. 2021, arXiv 2103.16844).

The loss is ``mean_d (s_d - t_{pi(d)})^2``. ``s`` are the student's mapped features, ``t`` the teacher's features, and ``pi`` is the
permutation of channels with the smallest loss over the mini-batch (optimal assignment). ``pi`` depends on the student and carries no
gradient. If all examples have equal weights, the gradient is still exact, since ``pi`` minimises that same loss.

This is a surrogate of this project, since only the abstract of the paper was available. Knowledge-consistent distillation transforms the
teacher's features to agree with the student's channels before it compares them. Deviations: this project chose a one-to-one matching by
squared distance, computed again for each mini-batch. It costs one assignment of D_k by D_k per teacher and update, on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kd_env.knowledge.hint import LinearProjector
from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.projector import Projector
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class ConsistentSurrogate(Knowledge):
    """Match the teacher's features in the student's order of channels (surrogate of KCD)."""

    compares: ClassVar[Output] = "features"
    projector: ClassVar[type[Projector]] = LinearProjector

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared difference to the matched channels of ``target [B, D_k]``, ``[B]``."""
        matched = target.gather(1, match(student.features, target).expand_as(target))
        return (student.features - matched).square().mean(1)


def match(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the one-to-one matching of teacher channels to student channels with the least total squared distance, ``[D]``.

    Args:
        student: mapped features of the student, ``[B, D]``.
        teacher: features of the teacher, ``[B, D]``.
    """
    cost = -student.detach().T @ teacher.detach()  # [D, D], half the squared distances, without the terms that no permutation changes
    channels: Tensor = _Assignment.apply(cost)  # type: ignore[no-untyped-call]
    return channels


class _Assignment(torch.autograd.Function):
    """The assignment of least cost, ``[..., D, D]`` -> columns ``[..., D]``; an ``autograd.Function``, so that ``vmap`` can call it."""

    @staticmethod
    def forward(cost: Tensor) -> Tensor:
        costs = np.nan_to_num(cost.double().cpu().numpy(), nan=0.0, posinf=0.0, neginf=0.0)  # any matching serves a diverged student
        columns = np.stack([linear_sum_assignment(matrix)[1] for matrix in costs.reshape(-1, *costs.shape[-2:])])
        return torch.from_numpy(columns.reshape(costs.shape[:-1])).to(cost.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], cost: Tensor) -> tuple[Tensor, int]:
        return _Assignment.apply(cost.movedim(in_dims[0], 0)), 0  # type: ignore[no-untyped-call]
