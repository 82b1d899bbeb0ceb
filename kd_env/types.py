"""Shape letters, and the values that pass from one stage to the next.

N examples, B mini-batch, K teachers, M knowledge types, C classes, D feature width, L layers, T tokens, F observation columns, S students.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Inputs = dict[str, Tensor]
"""What a network reads, by the Transformers names (``pixel_values`` or ``input_ids``, ``attention_mask``); first axis N or B."""

Observation = dict[str, np.ndarray]
"""Named blocks, each ``[rows, F]``, float32."""


class ModelOutput(NamedTuple):
    """What a network, of a student or of a teacher, computes for a batch; what is beside a student's network adds the last two."""

    logits: Tensor  # [B, C]
    features: Tensor  # [B, D], the classifier's input
    layers: Tensor | None = None  # [B, L, D], each layer's [CLS] (of an MLP, each hidden layer), where they were asked for
    attention: Tensor | None = None  # [B, 2, T, T], last layer: attention and value relation, rows sum to 1, or to 0 for padding
    projections: Mapping[str, tuple[Tensor, ...]] = {}  # by projector K x [B, ..., D_k]: an output mapped to each teacher's width
    auxiliary: Tensor | None = None  # [B, ...], output of the module that learns beside a student (``auxiliary_module`` setting)

    def map(self, change: Callable[[Tensor], Tensor]) -> ModelOutput:
        """Return the output with ``change`` applied to every tensor."""
        return ModelOutput(*(_map_tensors(value, change) for value in self))

    def to(self, dtype: torch.dtype) -> ModelOutput:
        """Return the output with every tensor in ``dtype``."""
        return self.map(lambda tensor: tensor.to(dtype))

    def as_dict(self) -> dict[str, Any]:
        """Return the outputs that are there, by name, as dicts and tuples of tensors: what ``torch.func.vmap`` can return."""
        named = {name: dict(value) if isinstance(value, Mapping) else value for name, value in self._asdict().items()}
        return {name: value for name, value in named.items() if value is not None}


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _map_tensors(item, change) for name, item in value.items()}
    return tuple(_map_tensors(item, change) for item in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class TeacherShapes:
    """Shapes of the K teachers' outputs, per example.

    Attributes:
        widths: D_k, the width of each teacher's features.
        layers: ``(L_k, D_k)`` of each teacher's layers; empty where layers are not kept.
    """

    widths: tuple[int, ...]
    layers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Batch:
    """The mini-batches that the students are about to learn from, with the outputs of teachers and students.

    Rows are those of student 0's mini-batch, then of student 1's and so on; with one student there are B. Tensors are detached and on the
    student's device.
    """

    update: np.ndarray  # [S]
    progress: np.ndarray  # [S], in [0, 1)
    example_ids: np.ndarray  # [rows], rows of the train split
    labels: Tensor  # [rows], -1 where unknown
    teacher_logits: Tensor  # [rows, K, C]
    teacher_features: tuple[Tensor, ...]  # K x [rows, D_k]
    student: ModelOutput
    teacher_layers: tuple[Tensor, ...] = ()  # K x [rows, L_k, D_k], where a knowledge type needs them
    teacher_attention: tuple[Tensor, ...] = ()  # K x [rows, 2, T, T]


class DecodedAction(NamedTuple):
    """What rows of an action mean; ``None`` means that the setting decides."""

    weights: np.ndarray  # [rows, K], each row on the simplex, or all zero where nobody teaches
    gates: np.ndarray | None = None  # [rows, M], in [0, 1], a factor of each knowledge type
    kd_weight: np.ndarray | None = None  # [rows], in [0, 1]
    temperature_scale: np.ndarray | None = None  # [rows], a factor of the setting's temperature


@dataclass(frozen=True)
class Decision:
    """How mini-batches are taught: the loss is ``L = mean_b sum_m s_bm sum_k w_bmk L_m(b, k)``.

    Attributes:
        weights: by knowledge type, ``[rows, K]``; rows are on the simplex, or all zero where no teacher is asked.
        strengths: by knowledge type, a number or ``[rows]``; ``label`` needs a strength and no weights.
        temperature: temperature of the types that compare logits, a number or ``[rows]``.
        penalty: ``[rows]``, added to the loss: a policy's own term, for parameters that learn with the student.

    Weights and strengths may carry a gradient; the module that computed them then learns from the student's loss.
    """

    weights: Mapping[str, Tensor]
    strengths: Mapping[str, float | Tensor]
    temperature: float | Tensor
    penalty: Tensor | None = None

    @classmethod
    def response(cls, weights: Tensor, kd_weight: float, temperature: float) -> Decision:
        """Return the usual decision: response at strength ``kd_weight``, the hard label at ``1 - kd_weight``."""
        return cls({"response": weights}, {"response": kd_weight, "label": 1.0 - kd_weight}, temperature)

    def detach(self) -> Decision:
        """Return the same decision without gradient."""

        def detached(value: Any) -> Any:
            return value.detach() if isinstance(value, Tensor) else value

        weights, strengths = ({name: detached(value) for name, value in part.items()} for part in (self.weights, self.strengths))
        return Decision(weights, strengths, detached(self.temperature), detached(self.penalty))

    @property
    def differentiable(self) -> bool:
        """Whether it carries a gradient; its numbers alone then do not determine how the student was taught."""
        parts = [*self.weights.values(), *self.strengths.values(), self.penalty]
        return any(isinstance(part, Tensor) and part.requires_grad for part in parts)


@dataclass(frozen=True)
class Outcome:
    """What one update did.

    Attributes:
        loss: the loss of each student ``[S]``.
        student_ce: cross-entropy of the students on the labels before the update ``[rows]``; 0 where the label is unknown.
        diverged: whether the loss is no longer finite ``[S]``.
    """

    loss: np.ndarray
    student_ce: Tensor
    diverged: np.ndarray
