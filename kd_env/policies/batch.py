"""The mini-batch that a policy is handed: the fields that its access includes, and no others."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from kd_env.policies.access import ALLOWED, GRADIENT, LABELS, STUDENT, TEACHERS, refuse
from kd_env.types import Batch, ModelOutput

RESOURCES = {
    "teacher_logits": TEACHERS,
    "teacher_features": TEACHERS,
    "teacher_layers": TEACHERS,
    "teacher_attention": TEACHERS,
    "student": STUDENT,
    "student_output": GRADIENT,
    "labels": LABELS,
}
"""What each field needs; the other fields are always there."""


class PolicyBatch:
    """The mini-batch about to be taught. Reading a field that the policy's access does not include raises an error that names it.

    Attributes:
        rows: number of instances, B per student.
        num_teachers: number of teachers K.
        update: number of updates so far, per student ``[S]``.
        progress: fraction of the budget that is spent, per student ``[S]``, in [0, 1).
        example_ids: positions of the examples in the train split, ``[rows]``.
        teacher_logits: ``[rows, K, C]``.
        teacher_features: K x ``[rows, D_k]``.
        teacher_layers: K x ``[rows, L_k, D_k]``, where a knowledge type of the setting compares layers.
        teacher_attention: K x ``[rows, 2, T, T]``, where a knowledge type compares attention.
        student: the student's logits and features, without gradient.
        student_output: all outputs of the student, differentiable: the loss is computed from the same forward pass.
        labels: ``[rows]``, -1 where unknown.
    """

    rows: int
    num_teachers: int
    update: np.ndarray
    progress: np.ndarray
    example_ids: np.ndarray
    teacher_logits: Tensor
    teacher_features: tuple[Tensor, ...]
    teacher_layers: tuple[Tensor, ...]
    teacher_attention: tuple[Tensor, ...]
    student: ModelOutput
    student_output: ModelOutput
    labels: Tensor

    def __init__(self, batch: Batch, output: ModelOutput | None, access: str, policy: str) -> None:
        """Take the fields of ``batch`` that ``access`` includes; ``output`` is the differentiable output of the student."""
        self.rows, self.num_teachers = batch.teacher_logits.shape[:2]
        self.update, self.progress, self.example_ids = batch.update, batch.progress, batch.example_ids
        self._access, self._policy = access, policy
        values: dict[str, Any] = {name: getattr(batch, name) for name in RESOURCES if name != "student_output"}
        if output is not None:
            values["student_output"] = output
        self.__dict__.update({name: value for name, value in values.items() if RESOURCES[name] in ALLOWED[access]})

    def __getattr__(self, name: str) -> NoReturn:
        """Raise the error of a field that is not there."""
        if name in RESOURCES and RESOURCES[name] not in ALLOWED[self._access]:
            raise refuse(self._policy, self._access, f"batch.{name}", RESOURCES[name])
        raise AttributeError(f"PolicyBatch has no {name!r}")
