"""Define the base class of knowledge types: a target from a teacher, and the student's loss against it, one value per example.

A type of your own subclasses :class:`Knowledge` and defines ``target`` and ``loss``. Four subclasses are bases for special cases:
:class:`~kd_env.knowledge.rowwise.RowwiseKnowledge` for types that compare logits example by example,
:class:`~kd_env.knowledge.layer_knowledge.LayerKnowledge` for types that compare layers,
:class:`~kd_env.knowledge.map_knowledge.MapKnowledge` for types that compare feature maps, and
:class:`~kd_env.knowledge.peers.PeerKnowledge` for types that compare a student with other students.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.func import vmap

from kd_env.errors import InputError
from kd_env.knowledge.context import LossContext
from kd_env.knowledge.projector import Projector
from kd_env.types import Batch, ModelOutput

Output = Literal["logits", "features", "layers", "attention", "maps"]
"""Names of the outputs in a :class:`~kd_env.types.ModelOutput` that a type may compare."""
EXTRA_OUTPUTS = {"layers": 3, "attention": 4, "maps": 4}
"""Outputs that a bank keeps and a student computes only if a knowledge type compares them, with their number of axes."""
TRAIN_ONLY = frozenset({"attention", "maps"})
"""Outputs that are so large that a bank keeps them for the train split alone."""


class Knowledge(ABC):
    """Base class of the terms of the loss that a policy may select.

    Attributes:
        compares: output of student and teacher that the type compares.
        uses_peers: whether the targets come from the other students of a population. Decisions then have no weights for this type.
    """

    compares: ClassVar[Output] = "logits"
    uses_peers: ClassVar[bool] = False

    @property
    def projector(self) -> type[Projector] | None:
        """Class of the maps to the teachers' widths, or ``None``. With a projector, ``loss`` gets the student's mapped output."""
        return None

    @property
    def requests(self) -> frozenset[str]:
        """Names of the outputs that a bank keeps and a student computes for this type, besides logits and features."""
        return frozenset({self.compares} & EXTRA_OUTPUTS.keys())

    @property
    def reads_labels(self) -> bool:
        """Whether the loss reads ``context.labels``. Such a type is refused if hard labels are not used."""
        return False

    @abstractmethod
    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the values that the student is to match, ``[B, ...]``."""

    @abstractmethod
    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the loss of each example, ``[B]``, at least 0."""

    def loss_in_context(self, student: ModelOutput, target: Tensor, context: LossContext) -> Tensor:
        """Return the loss of each example, ``[B]``. Override it if the loss depends on the temperature or the labels."""
        return self.loss(student, target)

    def align(self, student: ModelOutput, teacher: ModelOutput, k: int, num_teachers: int) -> tuple[ModelOutput, ModelOutput]:
        """Return the outputs of the student and of teacher ``k`` that the loss compares; by default both unchanged."""
        return student, teacher

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of each example against each teacher, ``[rows, K]``.

        By default, :meth:`target` and the loss are called once per teacher. With several students they run under ``torch.func.vmap``, so
        each call gets the B examples of one student's mini-batch.

        Args:
            student: outputs of all students for ``batch``.
            batch: mini-batches of all students.
            context: temperature and labels; tensors have shape ``[rows, 1]`` and ``[rows]``.
        """
        num_teachers = batch.teacher_logits.shape[1]
        columns = []
        for k in range(num_teachers):
            mapped = student if self.projector is None else self.projector.for_teacher(student, k)
            aligned = self.align(mapped, self._teacher(batch, k), k, num_teachers)
            column: object = self._for_each_student(*aligned, context, len(batch.update))
            if not isinstance(column, Tensor) or column.shape != batch.teacher_logits.shape[:1]:
                shown = f"a tensor {list(column.shape)}" if isinstance(column, Tensor) else f"a {type(column).__name__}"
                raise InputError(f"knowledge type {type(self).__name__}: loss() returned {shown}, expected one value per example, [B]")
            columns.append(column)
        return torch.stack(columns, 1)

    def _teacher(self, batch: Batch, k: int) -> ModelOutput:
        return ModelOutput(
            batch.teacher_logits[:, k],
            batch.teacher_features[k],
            batch.teacher_layers[k] if self.compares == "layers" else None,
            batch.teacher_attention[k] if self.compares == "attention" else None,
            maps=batch.teacher_maps[k] if self.compares == "maps" and batch.teacher_maps else None,
            stages=batch.teacher_stages[k] if self.compares == "maps" and batch.teacher_stages else {},
        )

    def _for_each_student(self, student: ModelOutput, teacher: ModelOutput, context: LossContext, num_students: int) -> Tensor:
        """Return the loss ``[rows]``; the rows of one student do not affect the loss of another."""
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
