"""``map_hint``: a feature map, matched through a regressor (FitNets; Romero et al. 2015, arXiv 1412.6550) as CA-MKD and MMKD do it.

The loss is ``mean_dhw (r_k(M_S) - M_k)^2``. ``M`` are by default the maps whose means over positions the classifiers read; ``stage`` names
others, as ``map_hint(stage=stage2)``, FitNets' middle layer. ``r_k`` is a 1x1 convolution with bias, BatchNorm and ReLU for each teacher,
which learns with the student (Zhang et al. 2022, arXiv 2201.00007; Yang et al. 2025, arXiv 2502.18510). With ``convolutions=3`` it is the
regressor of MMKD's published command (Zhang et al. 2023, arXiv 2306.06634): 1x1 to half of the student's channels, 3x3, and 1x1 to the
teacher's channels, each with BatchNorm and ReLU. A student's map that is larger than the teacher's is pooled to its size before, a smaller
one is interpolated. CA-MKD leaves the term out in the first epoch: ``map_hint(strength=50,skip_epochs=1)``.

Deviations: the released codes of CA-MKD and MTKD-RL resize the student's map for one teacher after the other, so that a small map of one
teacher makes it coarse for all later ones. Here the student's own map is resized for each teacher. MMKD's code pools a larger map of the
teacher, where the student's is interpolated here. For teachers with maps of the student's size all are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from kd_env import spec
from kd_env.knowledge.map_knowledge import StageKnowledge
from kd_env.knowledge.map_projector import ConvolutionalProjector, convolution, of_stage
from kd_env.knowledge.projector import Projector
from kd_env.types import ModelOutput


class MapProjector(ConvolutionalProjector):
    """Maps a feature map to each teacher by a 1x1 convolution."""

    name: ClassVar[str] = "maps"

    @staticmethod
    def regressor(channels: int, channels_k: int) -> nn.Module:
        """Return a 1x1 convolution with bias, BatchNorm and ReLU."""
        return nn.Sequential(*convolution(channels, channels_k))


class DeepMapProjector(ConvolutionalProjector):
    """Maps a feature map to each teacher by three convolutions."""

    name: ClassVar[str] = "maps.deep"

    @staticmethod
    def regressor(channels: int, channels_k: int) -> nn.Module:
        """Return convolutions of 1x1, 3x3 and 1x1, with half of the student's channels between them."""
        inner = max(channels // 2, 1)
        return nn.Sequential(*convolution(channels, inner), *convolution(inner, inner, kernel=3), *convolution(inner, channels_k))


@dataclass(frozen=True)
class MapHint(StageKnowledge):
    """Match the teacher's feature map.

    Attributes:
        convolutions: number of convolutions of the regressor, 1 or 3.
    """

    name: ClassVar[str] = "map_hint"
    convolutions: int = 1

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        spec.one_of("map_hint", 1, 3, convolutions=self.convolutions)

    @property
    def projector(self) -> type[Projector]:
        """Class of the regressors."""
        return of_stage(MapProjector if self.convolutions == 1 else DeepMapProjector, self.stage)

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared difference between the student's map, mapped to the teacher's shape, and ``target``, ``[B]``."""
        assert student.maps is not None
        return (student.maps - target).square().mean((1, 2, 3))
