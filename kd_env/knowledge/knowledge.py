"""What a knowledge type is: a target that a teacher sets, and the student's loss against it, one value per example.

A type of your own subclasses :class:`Knowledge` and defines ``target`` and ``loss``. :class:`~kd_env.knowledge.rowwise.RowwiseKnowledge`,
:class:`~kd_env.knowledge.layer_knowledge.LayerKnowledge` and :class:`~kd_env.knowledge.peers.PeerKnowledge` are bases for types that treat
each example by itself, compare layers, or ask other students.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.func import vmap

from kd_env.knowledge.context import LossContext
from kd_env.knowledge.projector import Projector
from kd_env.types import Batch, ModelOutput

Output = Literal["logits", "features", "layers", "attention"]
"""Outputs of a :class:`~kd_env.types.ModelOutput` that a type may compare."""
EXTRA_OUTPUTS = {"layers": 3, "attention": 4}
"""Outputs that a bank keeps and a student computes only where a knowledge type compares them, with their number of axes. Attention, which
is large, is kept for the train split alone."""


class Knowledge(ABC):
    """A term of the loss that a policy may select.

    Attributes:
        compares: the output of student and teacher that it compares.
        projector: the maps to the teachers' widths that it needs, or ``None``. ``loss`` is then given the student's mapped output in place
            of its own.
        asks_peers: its targets are other students of a population, not teachers; decisions hold no weights for it.
    """

    compares: ClassVar[Output] = "logits"
    projector: ClassVar[type[Projector] | None] = None
    asks_peers: ClassVar[bool] = False

    @property
    def reads_labels(self) -> bool:
        """Whether it reads ``context.labels``; then it is refused where labels are not part of the setting."""
        return False

    @abstractmethod
    def target(self, teacher: ModelOutput) -> Tensor:
        """Return what the student is to match, ``[B, ...]``."""

    @abstractmethod
    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the loss of each example, ``[B]``, at least 0."""

    def loss_in_context(self, student: ModelOutput, target: Tensor, context: LossContext) -> Tensor:
        """Return the loss of each example, ``[B]``; override it where the loss depends on the temperature or the labels."""
        return self.loss(student, target)

    def align(self, student: ModelOutput, teacher: ModelOutput, k: int, num_teachers: int) -> tuple[ModelOutput, ModelOutput]:
        """Return student and teacher ``k`` as the loss compares them: by default as they are."""
        return student, teacher

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of every example against every teacher, ``[rows, K]``.

        By default :meth:`target` and the loss are called once per teacher, for all students at once by ``torch.func.vmap``: they are given
        the B examples of one student's mini-batch.

        Args:
            student: output of all students for ``batch``.
            batch: the mini-batches of all students.
            context: temperature and labels, ``[rows, 1]`` and ``[rows]`` where they are tensors.
        """
        num_teachers = batch.teacher_logits.shape[1]
        columns = []
        for k in range(num_teachers):
            mapped = student if self.projector is None else self.projector.facing(student, k)
            aligned = self.align(mapped, self._teacher(batch, k), k, num_teachers)
            columns.append(self._for_each_student(*aligned, context, len(batch.update)))
        return torch.stack(columns, 1)

    def _teacher(self, batch: Batch, k: int) -> ModelOutput:
        return ModelOutput(
            batch.teacher_logits[:, k],
            batch.teacher_features[k],
            batch.teacher_layers[k] if self.compares == "layers" else None,
            batch.teacher_attention[k] if self.compares == "attention" else None,
        )

    def _for_each_student(self, student: ModelOutput, teacher: ModelOutput, context: LossContext, num_students: int) -> Tensor:
        """The loss ``[rows]``; the rows of one student do not enter that of another."""
        if num_students == 1:
            return self.loss_in_context(student, self.target(teacher), context)
        sides = (_tensors(student._asdict()), _tensors(teacher._asdict()), _tensors(vars(context)))
        constants = {name: value for name, value in vars(context).items() if not isinstance(value, Tensor)}

        def loss(student: dict[str, Tensor], teacher: dict[str, Tensor], context: dict[str, Tensor]) -> Tensor:
            return self.loss_in_context(
                ModelOutput(**student),  # type: ignore[arg-type]
                self.target(ModelOutput(**teacher)),  # type: ignore[arg-type]
                LossContext(**context, **constants),
            )

        grouped = ({name: value.reshape(num_students, -1, *value.shape[1:]) for name, value in side.items()} for side in sides)
        return vmap(loss)(*grouped).flatten(0, 1)


def _tensors(values: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
