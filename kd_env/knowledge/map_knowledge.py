"""Define the base classes of knowledge types that compare feature maps: of any stages, and of one stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge.context import LossContext
from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.models.stages import ALL, LAST, numbered, request
from kd_env.types import Batch, ModelOutput


class MapKnowledge(Knowledge):
    """Base class of types that compare the map of a stage of the student with the map of the teacher's stage of the same name.

    ``target`` and ``loss`` get the two maps of one stage as ``maps``. The losses of several stages are added.
    """

    compares: ClassVar[Output] = "maps"

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the stages. ``last`` is the map that is pooled and classified, ``all`` are the numbered stages of both networks."""
        return (LAST,)

    @property
    def requests(self) -> frozenset[str]:
        """Names of the outputs that a bank keeps and a student computes for this type."""
        return frozenset(map(request, self.compared))

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's map ``[B, D_k, h_k, w_k]``."""
        assert teacher.maps is not None
        return teacher.maps

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of each example against each teacher, ``[rows, K]``: the sum over the stages."""
        num_teachers = batch.teacher_logits.shape[1]
        columns = []
        for k in range(num_teachers):
            mapped = student if self.projector is None else self.projector.for_teacher(student, k)
            pairs = (self.align(*pair, k, num_teachers) for pair in self._pairs(mapped, self._teacher(batch, k)))
            first, *others = (self._for_each_student(*pair, context, len(batch.update)) for pair in pairs)
            columns.append(sum(others, first))
        return torch.stack(columns, 1)

    def _pairs(self, student: ModelOutput, teacher: ModelOutput) -> Iterator[tuple[ModelOutput, ModelOutput]]:
        """Return the outputs of student and teacher for each stage, with the maps of that stage as ``maps``."""
        for stage in paired(self.compared, student.stages, teacher.stages):
            yield student._replace(maps=student.named(request(stage))), teacher._replace(maps=teacher.named(request(stage)))


@dataclass(frozen=True)
class StageKnowledge(MapKnowledge):
    """Base class of types that compare the maps of one stage.

    Attributes:
        name: name of the type.
        stage: name of the stage whose maps are compared.
    """

    name: ClassVar[str]
    stage: str = LAST

    def __post_init__(self) -> None:
        """Check the stage."""
        require_stage(self.name, stage=self.stage)

    @property
    def compared(self) -> tuple[str, ...]:
        """Name of the stage."""
        return (self.stage,)


def paired(compared: tuple[str, ...], student: Iterable[str], teacher: Iterable[str]) -> list[str]:
    """Return the stages to compare: ``compared``, or for ``all`` the numbered stages whose names both networks have.

    As in the released codes, which pair the first stage with the first, the further stages of the deeper network are left out.
    """
    return numbered(stage for stage in student if stage in teacher) if compared == (ALL,) else list(compared)


def require_stage(kind: str, **options: object) -> None:
    """Check that options are the name of one stage.

    Raises:
        InputError: one is something else.
    """
    for name, stage in options.items():
        if not isinstance(stage, str) or not stage.isidentifier() or stage == ALL:
            raise InputError(f"{kind}({name}={stage}): expected the name of one stage, such as last or stage2")
