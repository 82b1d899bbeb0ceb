"""Define the base class of knowledge types that compare layers. The networks may have different depths."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.types import ModelOutput


class LayerKnowledge(Knowledge):
    """Base class of types that compare as many layers as the shallower network has."""

    compares: ClassVar[Output] = "layers"

    def align(self, student: ModelOutput, teacher: ModelOutput, k: int, num_teachers: int) -> tuple[ModelOutput, ModelOutput]:
        """Return both outputs with the same number of layers. The layers of the deeper network are evenly spaced and include the last."""
        assert student.layers is not None
        assert teacher.layers is not None
        count = min(student.layers.shape[1], teacher.layers.shape[1])
        return (
            student._replace(layers=evenly_spaced(student.layers, count)),
            teacher._replace(layers=evenly_spaced(teacher.layers, count)),
        )


def evenly_spaced(layers: Tensor, count: int) -> Tensor:
    """Return ``count`` evenly spaced layers of ``[B, L, D]``, including the first and the last. With ``count=1``, return the last."""
    depth = layers.shape[1]
    if count == depth:
        return layers
    indices = torch.linspace(0, depth - 1, count).round().long() if count > 1 else torch.tensor([depth - 1])
    return layers[:, indices.to(layers.device)]
