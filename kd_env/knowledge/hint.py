"""``hint``: the features that the classifier reads (FitNets; Romero et al. 2015, arXiv 1412.6550).

The loss is ``mean_d (r_k(F_S)_d - F_kd)^2``, as in FitNet-MKD, CA-MKD (Zhang et al. 2022, arXiv 2201.00007) and MMKD (Zhang et al. 2023,
arXiv 2306.06634). Deviation: their features are convolutional feature maps and ``r_k`` is a 1x1 convolution. Here the features are vectors
and ``r_k`` is a matrix.

``normalized`` compares directions: ``|r_k(F_S) / |r_k(F_S)| - F_k / |F_k||^2 = 2 - 2 cos``, twice DistilBERT's cosine loss (Sanh et al.
2019, arXiv 1910.01108).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.projector import Projector
from kd_env.knowledge.vectors import unit
from kd_env.types import ModelOutput, TeacherShapes


class LinearProjector(Projector):
    """Maps the features (the classifier's input) to each teacher's width by a matrix, without bias."""

    name: ClassVar[str] = "linear"
    projects: ClassVar[Literal["features"]] = "features"

    def __init__(self, network: nn.Module, example: ModelOutput, teachers: TeacherShapes) -> None:
        """Draw a matrix ``[D, D_k]`` per teacher from torch's global generator."""
        super().__init__(network, example, teachers)
        width = example.features.shape[1]
        self.maps = nn.ParameterList([nn.Parameter(torch.randn(width, width_k) * width**-0.5) for width_k in teachers.widths])

    def project(self, values: Tensor) -> tuple[Tensor, ...]:
        """Map features ``[B, D]`` to K x ``[B, D_k]``."""
        return tuple(values @ matrix for matrix in self.maps)


@dataclass(frozen=True)
class Hint(Knowledge):
    """Match the teacher's features, the input of its classifier.

    Attributes:
        normalized: whether to compare directions (DistilBERT's cosine) instead of values.
    """

    compares: ClassVar[Output] = "features"
    projector: ClassVar[type[Projector]] = LinearProjector

    normalized: bool = False

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the squared distance between the student's features, mapped to D_k, and ``target [B, D_k]``, ``[B]``."""
        if self.normalized:
            return (unit(student.features) - unit(target)).square().sum(1)
        return (student.features - target).square().mean(1)
