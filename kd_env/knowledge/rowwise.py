"""Knowledge types that compare the logits of one example at a time: one call serves all teachers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.context import LossContext
from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.types import Batch, ModelOutput


class RowwiseKnowledge(Knowledge):
    """A type whose loss for an example depends on that example's logits alone.

    Its methods take any leading axes and broadcast: the student has logits ``[B, 1, C]``, the teachers ``[B, K, C]``, the loss ``[B, K]``.
    """

    compares: ClassVar[Output] = "logits"

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of every example against every teacher, ``[rows, K]``, in one call."""
        teachers = ModelOutput(batch.teacher_logits, batch.teacher_logits)
        return self.loss_in_context(for_all_teachers(student), self.target(teachers), context.for_all_teachers())


def for_all_teachers(student: ModelOutput) -> ModelOutput:
    """Return logits and features of a student with an axis for teachers, ``[B, 1, ...]``."""
    return ModelOutput(student.logits[:, None], student.features[:, None])
