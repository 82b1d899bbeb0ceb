"""Define the shape letters and the values that pass from one package to the next.

N: examples of a split. B: instances of a mini-batch. K: teachers. M: knowledge types. C: classes. D: width of the features. L: layers.
T: tokens. F: observation columns. S: students. ``rows``: S * B, the instances of all students, student 0 first. ``slots``: the
units that one step acts on: one instance each (``rows`` slots), or the mini-batch of one student each (S slots).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Inputs = dict[str, Tensor]
"""Inputs of a network by their Transformers names (``pixel_values`` or ``input_ids``, ``attention_mask``). The first axis is N or B."""

Observation = dict[str, np.ndarray]
"""Observation blocks by name, each of shape ``[slots, F]`` and type float32."""


class ModelOutput(NamedTuple):
    """Outputs of a student's or a teacher's network for a batch; ``projections`` and ``auxiliary`` come from modules trained with it."""

    logits: Tensor  # [B, C]
    features: Tensor  # [B, D], the classifier's input
    layers: Tensor | None = None  # [B, L, D], the [CLS] vector of each layer (MLP: each hidden layer), if requested
    attention: Tensor | None = None  # [B, 2, T, T], last layer: attention and value relation; rows sum to 1, or to 0 for padding
    projections: Mapping[str, tuple[Tensor, ...]] = {}  # by projector, K x [B, ..., D_k]: an output mapped to each teacher's width
    auxiliary: Tensor | None = None  # [B, ...], output of the auxiliary module (setting ``auxiliary_module``)
    maps: Tensor | None = None  # [B, D, h, w], the last feature map, whose mean over positions the classifier reads, if requested
    stages: Mapping[str, Tensor] = {}  # [B, D, h, w] by stage: the feature maps that were requested by name

    def named(self, name: str) -> Any:
        """Return the output that is requested as ``name``, such as ``layers``, ``maps`` or ``maps.stage2``; ``None`` if it is missing."""
        output, _, stage = name.partition(".")
        return self.stages.get(stage) if stage else getattr(self, output)

    def map(self, change: Callable[[Tensor], Tensor]) -> ModelOutput:
        """Return the output with ``change`` applied to every tensor."""
        return ModelOutput(*(map_tensors(value, change) for value in self))

    def to(self, dtype: torch.dtype) -> ModelOutput:
        """Return the output with every tensor in ``dtype``."""
        return self.map(lambda tensor: tensor.to(dtype))

    def as_dict(self) -> dict[str, Any]:
        """Return the outputs that are not ``None`` by name, as dicts and tuples of tensors, which ``torch.func.vmap`` can return."""
        outputs = {name: dict(value) if isinstance(value, Mapping) else value for name, value in self._asdict().items()}
        return {name: value for name, value in outputs.items() if value is not None}


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with ``change`` applied to each tensor in it: a tensor, an output, a dict or tuple at any depth, or anything else."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, ModelOutput):
        return value.map(change)
    if isinstance(value, Mapping):
        return {name: map_tensors(item, change) for name, item in value.items()}
    return tuple(map_tensors(item, change) for item in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class TeacherShapes:
    """Shapes of the K teachers' outputs for one example.

    Attributes:
        widths: width D_k of each teacher's features.
        layers: shape ``(L_k, D_k)`` of each teacher's layers; empty if the bank does not keep layers.
        maps: shape ``(D_k, h_k, w_k)`` of each teacher's last feature map; empty if the bank does not keep maps.
        stages: shapes ``(D_k, h_k, w_k)`` of each teacher's feature maps that the bank keeps by name.
    """

    widths: tuple[int, ...]
    layers: tuple[tuple[int, int], ...] = ()
    maps: tuple[tuple[int, int, int], ...] = ()
    stages: tuple[Mapping[str, tuple[int, int, int]], ...] = ()


@dataclass(frozen=True)
class Batch:
    """The mini-batches that the students learn from next, with the outputs of teachers and students.

    The rows hold student 0's mini-batch, then student 1's, and so on. One student has B rows. Tensors are detached and on the student's
    device.
    """

    update: np.ndarray  # [S]
    progress: np.ndarray  # [S], in [0, 1)
    example_ids: np.ndarray  # [rows], positions of the examples in the train split
    labels: Tensor  # [rows], -1 where unknown
    teacher_logits: Tensor  # [rows, K, C]
    teacher_features: tuple[Tensor, ...]  # K x [rows, D_k]
    student: ModelOutput
    teacher_layers: tuple[Tensor, ...] = ()  # K x [rows, L_k, D_k], if a knowledge type needs them
    teacher_attention: tuple[Tensor, ...] = ()  # K x [rows, 2, T, T], if a knowledge type needs them
    teacher_maps: tuple[Tensor, ...] = ()  # K x [rows, D_k, h_k, w_k], if a knowledge type needs them
    teacher_stages: tuple[Mapping[str, Tensor], ...] = ()  # K x by stage, [rows, D_k, h_k, w_k], if a knowledge type needs them

    def clone(self) -> Batch:
        """Return a copy that shares no memory."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            values[name] = value.copy() if isinstance(value, np.ndarray) else map_tensors(value, Tensor.clone)
        return Batch(**values)

    def of_student(self, student: int) -> Batch:
        """Return the mini-batch of one student, with B rows."""
        return self._selected(slice(student, student + 1), self.rows_of(student))

    def of_students(self, students: Sequence[int]) -> Batch:
        """Return the mini-batches of some students, in this order; a student may occur several times."""
        return self._selected(list(students), self.rows_of_students(students))

    def rows_of(self, student: int) -> slice:
        """Return the rows of one student."""
        size = len(self.labels) // len(self.update)
        return slice(student * size, (student + 1) * size)

    def rows_of_students(self, students: Sequence[int]) -> np.ndarray:
        """Return the rows of some students, in this order."""
        return np.concatenate([np.arange(len(self.labels))[self.rows_of(student)] for student in students])

    def _selected(self, students: slice | list[int], rows: slice | np.ndarray) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: _select(value, students if name in ("update", "progress") else rows) for name, value in values.items()})


def _select(value: Any, rows: Any) -> Any:
    return value[rows] if isinstance(value, np.ndarray) else map_tensors(value, lambda tensor: tensor[rows])


class DecodedAction(NamedTuple):
    """The meaning of an action, one entry per slot. A field that is ``None`` is decided by the setting."""

    weights: np.ndarray  # [slots, K], on the simplex for each slot, or all zero if no teacher teaches it
    gates: np.ndarray | None = None  # [slots, M], in [0, 1], a factor of each knowledge type
    kd_weight: np.ndarray | None = None  # [slots], in [0, 1]
    temperature_scale: np.ndarray | None = None  # [slots], a factor of the setting's temperature


@dataclass(frozen=True)
class Decision:
    """How mini-batches are taught: the loss is ``L = mean_b sum_m s_bm sum_k w_bmk L_m(b, k)``.

    Tensors may carry a gradient. The module that computed them then learns from the student's loss. A policy needs the access ``gradient``
    or ``privileged`` for that.

    Attributes:
        weights: weights of the teachers by knowledge type, ``[rows, K]``; each row is on the simplex, or all zero if no teacher teaches it.
        strengths: strengths by knowledge type, a number or ``[rows]``. ``label`` and ``reward_ce`` have a strength and no weights.
            ``reward_ce`` is the cross-entropy on reward labels; its strength for a student is the mean over the student's rows. Without an
            entry, it is the setting ``reward_ce``.
        temperature: temperature of the types that compare logits, a number or ``[rows]``.
        penalty: term that the policy adds to the loss, ``[rows]``, for parameters that learn with the student.
    """

    weights: Mapping[str, Tensor]
    strengths: Mapping[str, float | Tensor]
    temperature: float | Tensor
    penalty: Tensor | None = None

    @classmethod
    def response(cls, weights: Tensor, kd_weight: float, temperature: float) -> Decision:
        """Return the usual decision: strength ``kd_weight`` for the response and ``1 - kd_weight`` for the hard label."""
        return cls({"response": weights}, {"response": kd_weight, "label": 1.0 - kd_weight}, temperature)

    def detach(self) -> Decision:
        """Return the same decision without gradient."""
        return self._map(lambda tensor: tensor.detach())

    def to(self, device: torch.device) -> Decision:
        """Return the decision with all tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Decision:
        parts = (map_tensors(part, change) for part in (self.weights, self.strengths, self.temperature, self.penalty))
        return Decision(*parts)

    @property
    def differentiable(self) -> bool:
        """Whether the decision carries a gradient. Its numbers alone then do not determine how the student is taught."""
        parts = [*self.weights.values(), *self.strengths.values(), self.temperature, self.penalty]
        return any(isinstance(part, Tensor) and part.requires_grad for part in parts)


@dataclass(frozen=True)
class Outcome:
    """The result of one update.

    Attributes:
        loss: loss of each student, ``[S]``.
        student_ce: cross-entropy of the students on the labels before the update, ``[rows]``; 0 where the label is unknown.
        diverged: students with a loss that is no longer finite, ``[S]``.
    """

    loss: np.ndarray
    student_ce: Tensor
    diverged: np.ndarray
