"""Define the interface that one student and a population of S students share: :class:`Students`.

The rows of inputs and outputs hold student 0's rows, then student 1's, and so on, the same number for each student. Values per student have
shape ``[S]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from kd_env.student.optimizer import OptimizerOptions
from kd_env.types import Inputs, ModelOutput


class Students(Protocol):
    """S networks of one architecture, each with its own optimizer state. Networks do not affect each other.

    :class:`~kd_env.student.student.Student` (S = 1) and :class:`~kd_env.student.population.Population` implement this interface.
    """

    @property
    def num_students(self) -> int:
        """Number of students S."""
        ...

    @property
    def network(self) -> nn.Module:
        """Network of the student. In a population, all students run this network with their own weights."""
        ...

    @property
    def options(self) -> OptimizerOptions:
        """Optimizer and learning-rate schedule, equal for all students."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights and outputs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and outputs. With autocast, a pass computes in bfloat16 and converts its outputs to this type."""
        ...

    @property
    def autocast(self) -> bool:
        """Whether a pass computes in bfloat16, except in :meth:`forward_at`."""
        ...

    @property
    def has_dropout(self) -> bool:
        """Whether a pass in training mode may draw from torch's global generator."""
        ...

    @property
    def parameters(self) -> list[Tensor]:
        """Tensors that are trained: the parameters of a single student, or the matrix ``[S, P]`` of a population."""
        ...

    def forward(self, inputs: Inputs, extra_outputs: frozenset[str] = frozenset(), moves_statistics: bool = True) -> ModelOutput:
        """Run all students on their own rows, differentiable; outputs are ``[rows, ...]`` in :attr:`dtype`.

        Args:
            inputs: encoded inputs, ``[rows, ...]``.
            extra_outputs: names of the outputs to compute besides logits and features: ``layers``, ``attention``, ``maps``, ``maps.STAGE``.
            moves_statistics: whether the next step stores the running statistics (BatchNorm) of this pass. A population has none.
        """
        ...

    def forward_at(self, parameters: Sequence[Tensor], inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Run all students with ``parameters`` (for example, dual numbers) in place of their own, without autocast."""
        ...

    def classify(self, features: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the logits ``[rows, C]`` that classifiers with the values in ``parameters`` compute from features ``[rows, D]``.

        Raises:
            InputError: the network has no linear classifier that reads the features.
        """
        ...

    def cast(self, inputs: Inputs) -> Inputs:
        """Convert floating-point inputs to :attr:`dtype`; token ids are not changed."""
        ...

    def step(self, loss: Tensor, progress: ArrayLike, learns: ArrayLike = True) -> None:
        """Backpropagate ``loss`` and take one optimizer step.

        Args:
            loss: sum of the students' losses, a scalar.
            progress: spent fraction of the budget, in [0, 1), ``[S]`` or a number; it determines the learning rates.
            learns: mask of the students that take the step, ``[S]`` or one value; a single student always takes it.
        """
        ...

    def after(self, gradient: Sequence[Tensor], progress: ArrayLike) -> list[Tensor]:
        """Return the parameters after a step on ``gradient``, one tensor per parameter, without a change of the students."""
        ...

    def predict(self, inputs: Inputs, shared: bool = False) -> Tensor:
        """Return logits ``[S * N, C]`` in evaluation mode, computed in batches.

        Args:
            inputs: encoded inputs, ``[S * N, ...]``, or ``[N, ...]`` if ``shared``.
            shared: whether all students run on the same N examples.
        """
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """Put the network into evaluation mode inside the context."""
        ...

    def evaluate(self, inputs: Inputs, labels: Tensor, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return mean cross-entropy and metric, each ``[S]``.

        Args:
            inputs: encoded inputs, as for :meth:`predict`.
            labels: labels, ``[S * N]``, or ``[N]`` if ``shared``.
            shared: whether all students run on the same N examples.
        """
        ...

    def preconditioner(self) -> list[Tensor | float]:
        """Return the factor of the optimizer on a gradient, without the learning rate, one factor per tensor of :attr:`parameters`.

        It is ``1 / (sqrt(v_hat) + eps)`` for Adam, and 1 for SGD and before the first step.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the weights and the optimizer state by name."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Load a copy of the state that :meth:`state` returned."""
        ...

    def state_of(self, student: int) -> dict[str, Tensor]:
        """Return a copy of one student's weights and optimizer state, which a single student can load."""
        ...

    def reset_student(self, student: int, network: nn.Module) -> None:
        """Replace one student by ``network`` with a new optimizer state; the other students do not change."""
        ...
