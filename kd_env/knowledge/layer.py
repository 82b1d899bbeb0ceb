"""``layer``: hidden states of the layers (AKD's FeaK, Wang et al. 2022, arXiv 2302.00444; hints, Romero et al. 2015, arXiv 1412.6550).

The loss is ``mean_l mean_d (s_ld - t_ld)^2``, where ``s`` are the mapped [CLS] vectors of the student's layers and ``t`` the [CLS] vectors
of the teacher's layers. Two options change it:

- ``normalized`` is patient distillation (PKD, Sun et al. 2019, arXiv 1908.09355): ``mean_l |s_l / |s_l| - t_l / |t_l||^2``, summed over the
  width.
- ``grouped`` is multi-group hints (Liu et al. 2020, arXiv 2103.04062): the student's layers are divided into K groups, and the last layer
  of teacher k is the hint for the last layer of group k only.

Deviations: a linear map that learns with the student takes each student layer to the teacher's width (hints map one layer; PKD maps none
and needs equal widths). Layers are paired evenly, the last with the last (PKD leaves the last out). The loss is a mean over layers (PKD: a
sum). The released code of multi-group hints leaves out the last teacher and normalises both sides before the map; here neither is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from kd_env.knowledge.layer_knowledge import LayerKnowledge, evenly_spaced
from kd_env.knowledge.projector import Projector
from kd_env.knowledge.vectors import unit
from kd_env.types import ModelOutput, TeacherShapes


class LayerProjector(Projector):
    """Maps each student layer that is compared with teacher k to the teacher's width, by one matrix per layer, without bias."""

    name: ClassVar[str] = "layers"
    projects: ClassVar[Literal["layers"]] = "layers"

    def __init__(self, network: nn.Module, example: ModelOutput, teachers: TeacherShapes) -> None:
        """Draw matrices ``[min(L, L_k), D, D_k]`` per teacher from torch's global generator."""
        super().__init__(network, example, teachers)
        assert example.layers is not None
        _, depth, width = example.layers.shape
        self.depths = [min(depth, depth_k) for depth_k, _ in teachers.layers]
        for k, (_, width_k) in enumerate(teachers.layers):
            self.register_parameter(f"map{k}", nn.Parameter(torch.randn(self.depths[k], width, width_k) * width**-0.5))

    def project(self, values: Tensor) -> tuple[Tensor, ...]:
        """Map layers ``[B, L, D]`` to K x ``[B, min(L, L_k), D_k]``."""
        matrices = [getattr(self, f"map{k}") for k in range(len(self.depths))]
        layers = [evenly_spaced(values, depth) for depth in self.depths]
        return tuple(torch.einsum("bld,lde->ble", *pair) for pair in zip(layers, matrices, strict=True))


@dataclass(frozen=True)
class Layer(LayerKnowledge):
    """Match the hidden states of the teacher's layers.

    Attributes:
        normalized: whether to compare directions (PKD) instead of values.
        grouped: whether each teacher teaches one group of the student's layers. For a teacher with fewer layers than the student, the
            groups are made from the layers that are mapped to this teacher.
    """

    projector: ClassVar[type[Projector]] = LayerProjector

    normalized: bool = False
    grouped: bool = False

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's layers ``[B, L, D]``."""
        assert teacher.layers is not None
        return teacher.layers

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the squared distance between the student's layers, mapped to D, and ``target [B, L, D]``, ``[B]``."""
        assert student.layers is not None
        if self.normalized:
            return (unit(student.layers) - unit(target)).square().sum(-1).mean(-1)
        return (student.layers - target).square().mean((-2, -1))

    def align(self, student: ModelOutput, teacher: ModelOutput, k: int, num_teachers: int) -> tuple[ModelOutput, ModelOutput]:
        """Pair layers evenly. With ``grouped``, pair the last layer of the student's group ``k`` with the teacher's last layer."""
        if not self.grouped:
            return super().align(student, teacher, k, num_teachers)
        assert student.layers is not None
        assert teacher.layers is not None
        layer = last_of_group(k, num_teachers, student.layers.shape[1])
        return student._replace(layers=student.layers[:, layer : layer + 1]), teacher._replace(layers=teacher.layers[:, -1:])


def last_of_group(k: int, groups: int, depth: int) -> int:
    """Return the index of the last layer of group ``k`` if ``depth`` layers are divided into ``groups`` groups."""
    return -(-(k + 1) * depth // groups) - 1
