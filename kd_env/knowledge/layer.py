"""``layer``: the layers themselves (AKD's FeaK, Wang et al. 2022, arXiv 2302.00444; hints, Romero et al. 2015, arXiv 1412.6550).

``mean_l mean_d (s_ld - t_ld)^2`` of the mapped layers' [CLS] ``s`` and ``t``. ``normalized`` is patient distillation (PKD, Sun et al. 2019,
arXiv 1908.09355): ``mean_l |s_l / |s_l| - t_l / |t_l||^2``, summed over the width. ``grouped`` is multi-group hints (Liu et al. 2020, arXiv
2103.04062): the student's layers are K groups, and teacher k's last layer is the hint for the last layer of group k alone.

Deviations: a linear map, learned with the student, takes every student layer to the teacher's width (hints map one layer; PKD maps none
and needs equal widths). Layers are paired evenly, the last with the last (PKD leaves the last out). PKD sums over layers: here is the mean.
The released code of multi-group hints leaves the last teacher out, and normalises both sides before it maps; here neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.types import ModelOutput

_ZERO = 1e-24
"""Vectors of a smaller squared norm have no direction; float32 still holds what the derivative of the norm takes of it."""


@dataclass(frozen=True)
class Layer(Knowledge):
    """What the teacher's layers hold.

    Attributes:
        normalized: compare directions (PKD) instead of values.
        grouped: each teacher is the hint for a group of the student's layers (of those that are mapped to it, where it is shallower).
    """

    needs: ClassVar[Part] = "layers"
    projects: ClassVar[bool] = True

    normalized: bool = False
    grouped: bool = False

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's layers ``[B, L, D]``."""
        assert teacher.layers is not None
        return teacher.layers

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Squared distance to the teacher's layers ``target [B, L, D]`` of the student's, mapped to the same D -> ``[B]``."""
        assert student.layers is not None
        if self.normalized:
            return (unit(student.layers) - unit(target)).square().sum(-1).mean(-1)
        return (student.layers - target).square().mean((-2, -1))


def norm(vectors: Tensor) -> Tensor:
    """Euclidean norm over the last axis, kept, ``[..., D]`` -> ``[..., 1]``; at zero its gradient is zero and not NaN."""
    squares = vectors.square().sum(-1, keepdim=True)
    zero = squares < _ZERO
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())


def unit(vectors: Tensor) -> Tensor:
    """Vectors ``[..., D]`` over their norm; those of norm zero stay as they are, so that their gradient is small."""
    length = norm(vectors)
    return vectors / torch.where(length == 0.0, 1.0, length)
