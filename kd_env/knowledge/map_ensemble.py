"""``map_ensemble``: feature maps of several teachers, each matched through convolutions (FEED; Park & Kwak 2019, arXiv 1909.10754).

The loss is ``sum_dhw |n_k(M_S) / |n_k(M_S)| - M_k / |M_k||``, the L1 distance between the directions of the maps. ``n_k`` are three 3x3
convolutions per teacher that learn with the student, with BatchNorm and ReLU between them. Parallel FEED, which other papers call FE-MKD,
adds the sum over all teachers to the cross-entropy. ``feature_ensemble`` does the same with vectors.

Only descriptions of the paper's equations were available: distance and norms follow these descriptions, and that there are BatchNorm and
ReLU between the convolutions and none after the last one is a reading of this project. Deviation: teachers are weighted (equal weights are
1/K), not summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from kd_env.knowledge.map_knowledge import StageKnowledge
from kd_env.knowledge.map_projector import ConvolutionalProjector, convolution, of_stage
from kd_env.knowledge.projector import Projector
from kd_env.knowledge.vectors import unit
from kd_env.types import ModelOutput


class NonlinearMapProjector(ConvolutionalProjector):
    """Maps a feature map to each teacher by three 3x3 convolutions."""

    name: ClassVar[str] = "maps.nonlinear"

    @staticmethod
    def regressor(channels: int, channels_k: int) -> nn.Module:
        """Return the convolutions, with BatchNorm and ReLU after the first two."""
        blocks = [*convolution(channels, channels_k, kernel=3), *convolution(channels_k, channels_k, kernel=3)]
        return nn.Sequential(*blocks, nn.Conv2d(channels_k, channels_k, 3, padding=1))


@dataclass(frozen=True)
class MapEnsemble(StageKnowledge):
    """Match the direction of the teacher's feature map through convolutions (FEED)."""

    name: ClassVar[str] = "map_ensemble"

    @property
    def projector(self) -> type[Projector]:
        """Class of the convolutions."""
        return of_stage(NonlinearMapProjector, self.stage)

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the L1 distance between the directions of the mapped map and ``target [B, D_k, h_k, w_k]``, ``[B]``."""
        assert student.maps is not None
        return (unit(student.maps.flatten(1)) - unit(target.flatten(1))).abs().sum(1)
