"""``attention_transfer``: where a feature map is large (Zagoruyko and Komodakis 2017, arXiv 1612.03928, activation-based).

The loss is ``sum_stages mean_hw (a_S - a_k)^2``. ``a = q / |q|``, and ``q`` is the mean of the squared map over its channels, ``[h, w]``,
as in the released code. The paper's loss is ``beta / 2`` times the sum over positions, so that its beta of 1,000 divided by the number of
positions is ``attention_transfer(stages=all,strength=500)`` here. No map is learned, so widths may differ. Of two maps the larger one is
pooled to the size of the other.

``stages=last``, the default, compares the last map alone. ``stages=all`` is the published sum over the numbered stages: those of student
and teacher that have the same name, so that of two networks with 3 and 5 stages the first 3 are compared. ``stages=stage2;stage3`` names
some.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge.map_knowledge import MapKnowledge, require_stage
from kd_env.knowledge.map_projector import resized
from kd_env.knowledge.vectors import unit
from kd_env.models.stages import ALL, LAST
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class AttentionTransfer(MapKnowledge):
    """Match the positions at which the teacher's feature maps are large.

    Attributes:
        stages: names of the stages whose maps are compared, with ``;`` between them: ``last``, ``all``, or such as ``stage2;stage3``.
    """

    stages: str = LAST

    def __post_init__(self) -> None:
        """Check the stages."""
        if self.stages == ALL:
            return
        if not isinstance(self.stages, str) or not self.stages:
            raise InputError(f"attention_transfer(stages={self.stages}): expected last, all, or names such as stage2;stage3")
        for stage in self.compared:
            require_stage("attention_transfer", stages=stage)
        if len(set(self.compared)) < len(self.compared):
            raise InputError(f"attention_transfer(stages={self.stages}): a stage is named twice; name it once")

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the stages."""
        return tuple(self.stages.split(";"))

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared difference of the normalised attention to that of ``target``, ``[B]``."""
        assert student.maps is not None
        height, width = (min(sides) for sides in zip(student.maps.shape[2:], target.shape[2:], strict=True))
        size = (height, width)
        return (attention_map(resized(student.maps, size)) - attention_map(resized(target, size))).square().mean(1)


def attention_map(maps: Tensor) -> Tensor:
    """Return the mean of the squares over the channels of ``[B, D, h, w]``, divided by its norm, ``[B, h * w]``."""
    return unit(maps.square().mean(1).flatten(1))
