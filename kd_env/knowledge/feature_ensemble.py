"""``feature_ensemble``: features of several teachers, each matched through a nonlinear map (FEED; Park & Kwak 2019, arXiv 1909.10754).

The loss is ``sum_d |n_k(F_S)_d / |n_k(F_S)| - F_kd / |F_k||``, the L1 distance between directions. ``n_k`` is a nonlinear map per teacher
that learns with the student. Parallel FEED, which other papers call FE-MKD, adds the sum over all teachers to the cross-entropy.

Deviations: the paper's map is three 3x3 convolutions over the last feature map, for a larger receptive field. A vector has no
neighbourhood, so ``n_k`` is two linear layers with a ReLU between them. Teachers are weighted (equal weights are 1/K), not summed. Only
descriptions of the paper's equations were available; distance and norms follow these descriptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.projector import Projector
from kd_env.knowledge.vectors import unit
from kd_env.types import ModelOutput, TeacherShapes


class MLPProjector(Projector):
    """Maps the features to each teacher's width by two linear layers with a ReLU between them."""

    name: ClassVar[str] = "mlp"
    projects: ClassVar[Literal["features"]] = "features"

    def __init__(self, network: nn.Module, example: ModelOutput, teachers: TeacherShapes) -> None:
        """Build two linear layers per teacher; their weights are drawn from torch's global generator."""
        super().__init__(network, example, teachers)
        width = example.features.shape[1]
        self.mlps = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, width_k), nn.ReLU(), nn.Linear(width_k, width_k)) for width_k in teachers.widths]
        )

    def project(self, values: Tensor) -> tuple[Tensor, ...]:
        """Map features ``[B, D]`` to K x ``[B, D_k]``."""
        return tuple(mlp(values) for mlp in self.mlps)


@dataclass(frozen=True)
class FeatureEnsemble(Knowledge):
    """Match the direction of the teacher's features through a nonlinear map (FEED)."""

    compares: ClassVar[Output] = "features"
    projector: ClassVar[type[Projector]] = MLPProjector

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the L1 distance between the directions of the mapped features and ``target [B, D_k]``, ``[B]``, at most 2 sqrt(D_k)."""
        return (unit(student.features) - unit(target)).abs().sum(1)
