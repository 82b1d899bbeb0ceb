"""``relation``: how the layers relate to each other (AKD's RelK, Wang et al. 2022, arXiv 2302.00444; FSP matrices, Yim et al. 2017, CVPR).

The loss is ``mean_lm (G^S_lm - G^T_lm)^2``, where ``G_lm`` is the cosine between the [CLS] vectors of layers ``l`` and ``m``, ``[L, L]``.

Deviations: an FSP matrix holds inner products of the channels of two layers over all positions, so both networks must have equal widths.
Here each layer is one vector, and the Gram matrix between layers replaces the FSP matrix. Vectors are normalised, so width and scale do not
matter and no map is learned. The diagonal counts as equal, even if a vector is zero. With L = 1 there is no relation, and the loss is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_env.knowledge.layer_knowledge import LayerKnowledge
from kd_env.knowledge.vectors import unit
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class Relation(LayerKnowledge):
    """Match the teacher's cosines between layers."""

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the cosine Gram matrix of the teacher's layers, ``[B, L, L]``."""
        assert teacher.layers is not None
        return _gram(teacher.layers)

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared difference to the Gram matrix ``target [B, L, L]`` of the same number of layers, ``[B]``."""
        assert student.layers is not None
        off_diagonal = 1 - torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)
        return (off_diagonal * (_gram(student.layers) - target)).square().mean((-2, -1))


def _gram(layers: Tensor) -> Tensor:
    directions = unit(layers)
    return directions @ directions.transpose(-2, -1)  # [B, L, L]
