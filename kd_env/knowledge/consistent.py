"""``consistent_surrogate``: features in the student's order of channels; ours, after KCD (Han et al. 2021, arXiv 2103.16844).

``mean_d (s_d - t_{pi(d)})^2``: the hint loss after the teacher's channels ``t`` have changed places so that they meet the student's mapped
ones ``s``; ``pi`` is the permutation with the least loss over the mini-batch (optimal assignment). It follows from the student and carries
no gradient; where all examples count alike none is missing, since ``pi`` minimises that very loss.

A surrogate: knowledge-consistent distillation transforms the teacher's features to agree with the student's channels before they are
compared. The paper could not be read beyond its abstract. That the transformation is a one-to-one matching, that squared distance decides
it, and that it is found anew for each mini-batch are ours. Costs an assignment of D_k by D_k a teacher and update, on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class ConsistentSurrogate(Knowledge):
    """What the teacher's classifier reads, in the student's order of channels (surrogate of KCD)."""

    needs: ClassVar[Part] = "features"
    projects: ClassVar[bool] = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Mean squared distance to the channels of ``target [B, D_k]`` that are matched to the student's -> ``[B]``."""
        matched = target.gather(1, match(student.features, target).expand_as(target))
        return (student.features - matched).square().mean(1)


def match(student: Tensor, teacher: Tensor) -> Tensor:
    """For each of D student channels a teacher channel of its own, so that they are nearest in all; ``[B, D]`` twice -> ``[D]``."""
    apart = -student.detach().T @ teacher.detach()  # [D, D]: half the squared distances, less what no permutation changes
    found: Tensor = _Assignment.apply(apart)  # type: ignore[no-untyped-call]
    return found


class _Assignment(torch.autograd.Function):
    """The assignment of least cost ``[..., D, D]`` -> columns ``[..., D]``; a function of torch's, so that ``vmap`` can call it."""

    @staticmethod
    def forward(cost: Tensor) -> Tensor:
        table = np.nan_to_num(cost.double().cpu().numpy(), nan=0.0, posinf=0.0, neginf=0.0)  # a student that diverges is matched somehow
        flat = table.reshape(-1, *table.shape[-2:])
        columns = np.stack([linear_sum_assignment(one)[1] for one in flat])
        return torch.from_numpy(columns.reshape(table.shape[:-1])).to(cost.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], cost: Tensor) -> tuple[Tensor, int]:
        return _Assignment.apply(cost.movedim(in_dims[0], 0)), 0  # type: ignore[no-untyped-call]
