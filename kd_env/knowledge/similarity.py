"""``similarity``: relations between the examples of a mini-batch (RKD and similarity-preserving distillation).

``x`` are features and ``h`` is the Huber loss with threshold 1.

- ``distance`` (RKD, Park et al. 2019, arXiv 1904.05068): ``l_b = mean_{j != b} h(d^S_bj - d^T_bj)``, where ``d_ij`` is ``|x_i - x_j|``
  divided by its mean over all pairs of the mini-batch.
- ``angle`` (RKD): ``l_b = mean_{i, k} h(cos^S_ibk - cos^T_ibk)``, the angle at ``b`` between ``i`` and ``k``; the three are different.
- ``preserving`` (Tung & Mori 2019, arXiv 1907.09682): ``l_b = mean_j (G^S_bj - G^T_bj)^2``, where ``G`` is ``x x^T`` with each row divided
  by its norm.

Deviations: RKD sums over ordered pairs or triplets. Here ``mean_b l_b`` is that sum divided by ``B(B-1)`` or ``B(B-1)(B-2)``, so that the
loss does not grow with B. ``mean_b l_b`` of ``preserving`` is exactly the paper's loss. Coincident points have distance 0 and no direction.
A mini-batch too small for a pair (or a triplet) gives zeros. Memory grows as ``B^2 D`` (``angle``: also ``B^3``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from kd_env.errors import InputError
from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.vectors import norm, unit
from kd_env.types import ModelOutput

Kind = Literal["distance", "angle", "preserving"]


@dataclass(frozen=True)
class Similarity(Knowledge):
    """Match the teacher's relations between the examples of the mini-batch.

    Attributes:
        kind: relation that is compared: ``distance``, ``angle`` or ``preserving``.
    """

    compares: ClassVar[Output] = "features"

    kind: Kind = "distance"

    def __post_init__(self) -> None:
        """Check ``kind``."""
        if self.kind not in get_args(Kind):
            raise InputError(f"similarity(kind={self.kind}): kind must be one of {', '.join(get_args(Kind))}")

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's features ``[B, D]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the error of each example's relations to the other examples, ``[B]``; ``target [B, D]`` may have any width."""
        size = len(target)
        if self.kind == "preserving":
            return preserving(student.features, target)
        if self.kind == "distance":
            return smooth_l1_loss(_distances(student.features), _distances(target), reduction="none").sum(1) / max(size - 1, 1)
        error = smooth_l1_loss(_cosines(student.features), _cosines(target), reduction="none") * _off_diagonal(target)
        return error.sum((1, 2)) / max((size - 1) * (size - 2), 1)


def preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the error of the similarities between examples, ``[B, D]``, ``[B, D']`` -> ``[B]``; 0 for a mini-batch of one."""
    return (_similarities(student) - _similarities(teacher)).square().mean(1) * (len(teacher) > 1)


def _distances(features: Tensor) -> Tensor:
    distances = norm(features[:, None] - features).squeeze(2)  # [B, B]
    mean = distances.sum() / max(len(features) * (len(features) - 1), 1)
    return distances / torch.where(mean == 0.0, 1.0, mean)


def _cosines(features: Tensor) -> Tensor:
    directions = unit(features - features[:, None])  # [B, B, D], from the vertex, the first axis, to the others
    return directions @ directions.transpose(1, 2)  # [B, B, B]


def _similarities(features: Tensor) -> Tensor:
    return unit(features @ features.T)  # [B, B]


def _off_diagonal(like: Tensor) -> Tensor:
    return 1 - torch.eye(len(like), dtype=like.dtype, device=like.device)
