"""Define the base class of projectors of feature maps: convolutions to each teacher's channels, at the size of the teacher's map.

In: a student's map of a stage. Out: the map for each teacher, in ``ModelOutput.projections``. A projector is made for the last stage;
:func:`of_stage` returns the same one for another stage.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from kd_env.knowledge.projector import Projector
from kd_env.models.stages import LAST, request
from kd_env.types import ModelOutput, TeacherShapes


class ConvolutionalProjector(Projector):
    """Maps the feature map of a stage to each teacher's channels and size.

    Attributes:
        stage: name of the stage.
    """

    projects: ClassVar[Literal["maps"]] = "maps"
    stage: ClassVar[str] = LAST

    def __init__(self, network: nn.Module, example: ModelOutput, teachers: TeacherShapes) -> None:
        """Draw the convolutions for each teacher from torch's global generator."""
        super().__init__(network, example, teachers)
        channels = example.named(request(self.stage)).shape[1]
        shapes = teachers.maps if self.stage == LAST else tuple(stages[self.stage] for stages in teachers.stages)
        self.sizes = [(height, width) for _, height, width in shapes]
        self.regressors = nn.ModuleList(self.regressor(channels, channels_k) for channels_k, _, _ in shapes)

    @staticmethod
    @abstractmethod
    def regressor(channels: int, channels_k: int) -> nn.Module:
        """Return the convolutions from the student's number of channels to a teacher's, which keep the size of the map."""

    def project(self, values: Tensor) -> tuple[Tensor, ...]:
        """Map a feature map ``[B, D, h, w]`` to K x ``[B, D_k, h_k, w_k]``."""
        return tuple(regressor(resized(values, size)) for regressor, size in zip(self.regressors, self.sizes, strict=True))

    def extend(self, output: ModelOutput) -> ModelOutput:
        """Return the output with the mapped maps added, if the student computed the map of the stage."""
        values: Tensor | None = output.named(request(self.stage))
        if values is None:
            return output
        return output._replace(projections={**output.projections, self.name: self.project(values)})

    @classmethod
    def for_teacher(cls, output: ModelOutput, k: int) -> ModelOutput:
        """Return the student's output with the map for teacher ``k`` in place of the stage's map."""
        mapped = output.projections[cls.name][k]
        if cls.stage == LAST:
            return output._replace(maps=mapped)
        return output._replace(stages={**output.stages, cls.stage: mapped})


@cache
def of_stage(projector: type[ConvolutionalProjector], stage: str) -> type[ConvolutionalProjector]:
    """Return the projector that maps the map of ``stage`` in place of the last one."""
    if stage == LAST:
        return projector
    return type(projector.__name__, (projector,), {"name": f"{projector.name}.{stage}", "stage": stage, "__doc__": projector.__doc__})


def convolution(inputs: int, outputs: int, kernel: int = 1) -> list[nn.Module]:
    """Return a convolution with bias that keeps the size of the map, BatchNorm and ReLU."""
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()]


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps ``[B, D, h, w]`` of height and width ``size``: means over parts of a larger map, a smaller one interpolated."""
    if maps.shape[2:] == size:
        return maps
    if maps.shape[2] >= size[0] and maps.shape[3] >= size[1]:
        return adaptive_avg_pool2d(maps, size)
    return interpolate(maps, size, mode="bilinear")
