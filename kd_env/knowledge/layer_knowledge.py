"""Knowledge types that compare layers, of networks whose depths may differ."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.types import ModelOutput


class LayerKnowledge(Knowledge):
    """A type that compares equally many layers of student and teacher: all of the shallower network's."""

    compares: ClassVar[Output] = "layers"

    def align(self, student: ModelOutput, teacher: ModelOutput, k: int, num_teachers: int) -> tuple[ModelOutput, ModelOutput]:
        """Take as many layers of the deeper network as the shallower has, evenly spaced, the last among them."""
        assert student.layers is not None
        assert teacher.layers is not None
        count = min(student.layers.shape[1], teacher.layers.shape[1])
        return (
            student._replace(layers=evenly_spaced(student.layers, count)),
            teacher._replace(layers=evenly_spaced(teacher.layers, count)),
        )


def evenly_spaced(layers: Tensor, count: int) -> Tensor:
    """Take ``count`` of the layers ``[B, L, D]``, evenly spaced: the first and the last among them; if ``count`` is 1, the last."""
    depth = layers.shape[1]
    if count == depth:
        return layers
    numbers = torch.linspace(0, depth - 1, count).round().long() if count > 1 else torch.tensor([depth - 1])
    return layers[:, numbers.to(layers.device)]
