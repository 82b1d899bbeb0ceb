"""Show a policy its mini-batch: only the fields that its access includes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

import numpy as np
from torch import Tensor

from kd_env.policies.access import ALLOWED, GRADIENT, LABELS, STUDENT, TEACHERS, refuse
from kd_env.types import Batch, ModelOutput, map_tensors


class PolicyBatch:
    """The mini-batch about to be taught. The type of a field says what it needs.

    Reading a field that the policy's access does not include raises an error that names it. Fields are copies, so a
    policy that changes one does not change what the student learns. Exception: :attr:`student_output` is not a copy if the access includes
    labels.
    """

    num_rows: int
    """Number of instances, B per student."""
    num_teachers: int
    """Number of teachers K."""
    update: np.ndarray
    """Number of updates so far, per student ``[S]``."""
    progress: np.ndarray
    """Fraction of the budget that is spent, per student ``[S]``, in [0, 1)."""
    example_ids: np.ndarray
    """Positions of the examples in the train split, ``[rows]``."""
    teacher_logits: Annotated[Tensor, TEACHERS]
    """``[rows, K, C]``."""
    teacher_features: Annotated[tuple[Tensor, ...], TEACHERS]
    """K x ``[rows, D_k]``."""
    teacher_layers: Annotated[tuple[Tensor, ...], TEACHERS]
    """K x ``[rows, L_k, D_k]``, where a knowledge type of the setting compares layers."""
    teacher_attention: Annotated[tuple[Tensor, ...], TEACHERS]
    """K x ``[rows, 2, T, T]``, where a knowledge type compares attention."""
    teacher_maps: Annotated[tuple[Tensor, ...], TEACHERS]
    """K x ``[rows, D_k, h_k, w_k]``, where a knowledge type compares feature maps."""
    teacher_stages: Annotated[tuple[Mapping[str, Tensor], ...], TEACHERS]
    """K x ``[rows, D_k, h_k, w_k]`` by stage, where a knowledge type compares feature maps of named stages."""
    student: Annotated[ModelOutput, STUDENT]
    """The student's logits and features, without gradient."""
    student_output: Annotated[ModelOutput, GRADIENT]
    """All outputs of the student, differentiable: the loss is computed from the same forward pass."""
    labels: Annotated[Tensor, LABELS]
    """``[rows]``, -1 where unknown."""

    def __init__(self, batch: Batch, output: ModelOutput | None, access: str, policy: str) -> None:
        """Take the fields of ``batch`` that ``access`` includes; ``output`` is the differentiable output of the student."""
        self.num_rows, self.num_teachers = batch.teacher_logits.shape[:2]
        self.update, self.progress, self.example_ids = batch.update.copy(), batch.progress.copy(), batch.example_ids.copy()
        self._access, self._policy = access, policy
        allowed = [name for name, resource in NEEDS.items() if resource in ALLOWED[access] and name != "student_output"]
        self._fields = {name: getattr(batch, name) for name in allowed}
        if GRADIENT in ALLOWED[access]:
            assert output is not None
            # the student's loss fills gradients of its own outputs, which tell the labels; it does not fill those of a copy
            self.student_output = output if LABELS in ALLOWED[access] else output.map(Tensor.clone)

    def __getattr__(self, name: str) -> Any:
        """Copy a field when it is first read, or raise the error of a field that is not there."""
        fields = self.__dict__.get("_fields", {})
        if name in fields:
            value = map_tensors(fields[name], Tensor.clone)
            setattr(self, name, value)
            return value
        if name in NEEDS and NEEDS[name] not in ALLOWED[self._access]:
            raise refuse(self._policy, self._access, f"batch.{name}", NEEDS[name])
        raise AttributeError(f"PolicyBatch has no {name!r}")


NEEDS: dict[str, str] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(PolicyBatch, include_extras=True).items() if hasattr(hint, "__metadata__")
}
"""What each field needs; the other fields are always there."""
