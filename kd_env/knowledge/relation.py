"""``relation``: how the layers relate to each other (AKD's RelK, Wang et al. 2022, arXiv 2302.00444; FSP matrices, Yim et al. 2017, CVPR).

``mean_lm (G^S_lm - G^T_lm)^2`` with ``G_lm`` the cosine of the [CLS] of layers ``l`` and ``m``, ``[L, L]``.

Deviations: an FSP matrix holds inner products of the channels of two layers over all places, so both networks must have equal widths. With
one vector a layer, the Gram matrix between layers takes its place, and vectors are normalised, so that width and scale drop out: no map is
learned. The diagonal is 1 in both and counts as no difference, also where a vector is zero. With L = 1 there is no relation, and the loss
is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.knowledge.layer import unit
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class Relation(Knowledge):
    """The teacher's cosines between layers."""

    needs: ClassVar[Part] = "layers"

    def target(self, teacher: ModelOutput) -> Tensor:
        """The cosine Gram matrix of the teacher's layers, ``[B, L, L]``."""
        assert teacher.layers is not None
        return _gram(teacher.layers)

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Mean squared difference to the Gram matrix ``target [B, L, L]`` of equally many layers -> ``[B]``."""
        assert student.layers is not None
        off_diagonal = 1 - torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)
        return (off_diagonal * (_gram(student.layers) - target)).square().mean((-2, -1))


def _gram(layers: Tensor) -> Tensor:
    directions = unit(layers)
    return directions @ directions.transpose(-2, -1)  # [B, L, L]
