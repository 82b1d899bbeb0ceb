"""``attention_transfer``: where a feature map is large (Zagoruyko and Komodakis 2017, arXiv 1612.03928, activation-based).

The loss is ``mean_hw (a_S - a_k)^2``. ``a = q / |q|``, and ``q`` is the mean of the squared map over its channels, ``[h, w]``, as in the
released code. The paper's loss is ``beta / 2`` times the sum over positions, so that its beta of 1,000 divided by the number of positions
is ``attention_transfer(strength=500)`` here. No map is learned, so widths may differ. Of two maps the larger one is pooled to the size of
the other.

Deviation: the paper sums over several stages, here the last map alone is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.map_hint import resized
from kd_env.knowledge.vectors import unit
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class AttentionTransfer(Knowledge):
    """Match the positions at which the teacher's last feature map is large."""

    compares: ClassVar[Output] = "maps"

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's map ``[B, D_k, h_k, w_k]``."""
        assert teacher.maps is not None
        return teacher.maps

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared difference of the normalised attention to that of ``target``, ``[B]``."""
        assert student.maps is not None
        height, width = (min(sides) for sides in zip(student.maps.shape[2:], target.shape[2:], strict=True))
        size = (height, width)
        return (attention_map(resized(student.maps, size)) - attention_map(resized(target, size))).square().mean(1)


def attention_map(maps: Tensor) -> Tensor:
    """Return the mean of the squares over the channels of ``[B, D, h, w]``, divided by its norm, ``[B, h * w]``."""
    return unit(maps.square().mean(1).flatten(1))
