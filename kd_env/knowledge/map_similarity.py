"""``map_similarity``: similarities between the examples of a mini-batch, of feature maps (Tung & Mori 2019, arXiv 1907.09682).

``l_b = mean_j (G^S_bj - G^T_bj)^2``, where ``G`` is ``x x^T`` with each row divided by its norm and ``x`` the map ``[B, D h w]`` of each
example as one vector. ``mean_b l_b`` is exactly the paper's loss. No map is learned, so channels and sizes may differ. The paper compares
the last convolutional layer, the default here; ``stage`` names another. ``similarity(kind=preserving)`` does the same with vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.map_knowledge import StageKnowledge
from kd_env.knowledge.similarity import preserving
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class MapSimilarity(StageKnowledge):
    """Match the teacher's similarities between the feature maps of the mini-batch."""

    name: ClassVar[str] = "map_similarity"

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's maps as vectors ``[B, D h w]``."""
        assert teacher.maps is not None
        return teacher.maps.flatten(1)

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the error of each example's similarities to the mini-batch, ``[B]``; ``target [B, D]`` may have any width."""
        assert student.maps is not None
        return preserving(student.maps.flatten(1), target)
