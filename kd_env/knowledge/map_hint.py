"""``map_hint``: the last feature map, matched through a regressor (FitNets; Romero et al. 2015, arXiv 1412.6550) as CA-MKD and MMKD do it.

The loss is ``mean_dhw (r_k(M_S) - M_k)^2``. ``M`` are the maps whose means over positions the classifiers read. ``r_k`` is a 1x1
convolution with bias, BatchNorm and ReLU for each teacher, which learns with the student (Zhang et al. 2022, arXiv 2201.00007; Zhang et al.
2023, arXiv 2306.06634). A student's map that is larger than the teacher's is pooled to its size before, a smaller one is interpolated, as
in the released codes. These leave the term out in the first epoch: ``map_hint(strength=50,skip_epochs=1)``.

Deviation: the released code of CA-MKD resizes the student's map for one teacher after the other, so that a small map of one teacher makes
it coarse for all later ones. Here the student's own map is resized for each teacher. For teachers with maps of one size both are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.projector import Projector
from kd_env.types import ModelOutput, TeacherShapes


class MapProjector(Projector):
    """Maps the last feature map to each teacher's channels and size."""

    name: ClassVar[str] = "maps"
    projects: ClassVar[Literal["maps"]] = "maps"

    def __init__(self, network: nn.Module, example: ModelOutput, teachers: TeacherShapes) -> None:
        """Draw a convolution per teacher from torch's global generator."""
        super().__init__(network, example, teachers)
        assert example.maps is not None
        channels = example.maps.shape[1]
        self.sizes = [(height, width) for _, height, width in teachers.maps]
        self.regressors = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels_k, 1), nn.BatchNorm2d(channels_k), nn.ReLU()) for channels_k, _, _ in teachers.maps
        )

    def project(self, values: Tensor) -> tuple[Tensor, ...]:
        """Map a feature map ``[B, D, h, w]`` to K x ``[B, D_k, h_k, w_k]``."""
        return tuple(regressor(resized(values, size)) for regressor, size in zip(self.regressors, self.sizes, strict=True))


@dataclass(frozen=True)
class MapHint(Knowledge):
    """Match the teacher's last feature map."""

    compares: ClassVar[Output] = "maps"
    projector: ClassVar[type[Projector]] = MapProjector

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's map ``[B, D_k, h_k, w_k]``."""
        assert teacher.maps is not None
        return teacher.maps

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared difference between the student's map, mapped to the teacher's shape, and ``target``, ``[B]``."""
        assert student.maps is not None
        return (student.maps - target).square().mean((1, 2, 3))


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps ``[B, D, h, w]`` of height and width ``size``: means over parts of a larger map, a smaller one interpolated."""
    if maps.shape[2:] == size:
        return maps
    if maps.shape[2] >= size[0] and maps.shape[3] >= size[1]:
        return adaptive_avg_pool2d(maps, size)
    return interpolate(maps, size, mode="bilinear")
