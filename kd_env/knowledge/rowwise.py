"""Define the base class of knowledge types that compare the logits of one example at a time. One call computes the loss of all teachers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.context import LossContext
from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.types import Batch, ModelOutput


class RowwiseKnowledge(Knowledge):
    """Base class of types with a loss for an example that depends on the logits of that example alone.

    The methods must accept any leading axes and broadcast: student logits ``[B, 1, C]`` and teacher logits ``[B, K, C]`` give a loss
    ``[B, K]``.
    """

    compares: ClassVar[Output] = "logits"

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of each example against each teacher, ``[rows, K]``, in one call."""
        teachers = ModelOutput(batch.teacher_logits, batch.teacher_logits)
        return self.loss_in_context(for_all_teachers(student), self.target(teachers), context.for_all_teachers())


def for_all_teachers(student: ModelOutput) -> ModelOutput:
    """Return the logits and features of a student with an axis for teachers, ``[B, 1, ...]``."""
    return ModelOutput(student.logits[:, None], student.features[:, None])
