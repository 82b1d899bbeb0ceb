"""What one student and a population of S students have in common: :class:`Students`.

Rows of inputs and outputs are those of student 0, then of student 1 and so on, equally many each. Values per student have shape ``[S]``.
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
    """S networks of one architecture that learn, each with an optimizer and a schedule of its own; what one does never affects another.

    Implemented by :class:`~kd_env.student.student.Student` (S = 1) and :class:`~kd_env.student.population.Population`.
    """

    @property
    def num_students(self) -> int:
        """Number of students S."""
        ...

    @property
    def network(self) -> nn.Module:
        """The network; of a population the one whose code all students run, without their weights."""
        ...

    @property
    def options(self) -> OptimizerOptions:
        """Optimizer and learning-rate schedule, the same for all students."""
        ...

    @property
    def device(self) -> torch.device:
        """Where weights and outputs are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and outputs; under autocast a pass computes in bfloat16 and its outputs are converted."""
        ...

    @property
    def has_dropout(self) -> bool:
        """Whether a pass in training mode may draw from torch's global generator."""
        ...

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that are learned and differentiated by: of one student its parameters, of a population one matrix ``[S, P]``."""
        ...

    def forward(self, inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Run all students on their own rows, differentiable; outputs are ``[rows, ...]`` in :attr:`dtype`.

        Args:
            inputs: encoded inputs ``[rows, ...]``.
            extra_outputs: outputs to compute besides logits and features: ``layers``, ``attention``.
        """
        ...

    def forward_at(self, parameters: Sequence[Tensor], inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Run all students with ``parameters`` (dual numbers, for example) in place of their own; without autocast."""
        ...

    def classify(self, features: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Apply the classifiers of ``parameters`` alone: features ``[rows, D]`` -> logits ``[rows, C]``.

        Raises:
            InputError: the network has no linear classifier that reads the features.
        """
        ...

    def cast(self, inputs: Inputs) -> Inputs:
        """Convert floating-point inputs to :attr:`dtype`; ids stay as they are."""
        ...

    def step(self, loss: Tensor, progress: ArrayLike, learns: ArrayLike = True) -> None:
        """Backpropagate ``loss`` and take one optimizer step.

        Args:
            loss: a scalar, the sum of the students' losses.
            progress: ``[S]`` or a number, the fraction of the budget that is spent, in [0, 1): it sets the learning rates.
            learns: ``[S]`` or one value: which students take the step; a student alone always does.
        """
        ...

    def after(self, gradient: Sequence[Tensor], progress: ArrayLike) -> list[Tensor]:
        """Return :attr:`parameters` as a step on ``gradient`` (of their shapes) would leave them; the students do not change."""
        ...

    def predict(self, inputs: Inputs, shared: bool = False) -> Tensor:
        """Return logits ``[S * N, C]`` in evaluation mode, computed in batches.

        Args:
            inputs: ``[S * N, ...]``, or ``[N, ...]`` if ``shared``.
            shared: all students are asked about the same N examples.
        """
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """Put the network in evaluation mode inside the block."""
        ...

    def evaluate(self, inputs: Inputs, labels: Tensor, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return mean cross-entropy and metric, ``[S]`` each; ``inputs``, ``labels`` and ``shared`` as for :meth:`predict`."""
        ...

    def preconditioner(self) -> list[Tensor | float]:
        """Return what the optimizer multiplies a gradient by, for each of :attr:`parameters`, apart from the learning rate.

        ``1 / (sqrt(v_hat) + eps)`` for Adam, 1 for SGD and before the first step.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Return weights and optimizer state by name."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Load a copy of what :meth:`state` returned."""
        ...

    def state_of(self, student: int) -> dict[str, Tensor]:
        """Return a copy of one student's weights and optimizer state, in the form of a lone student's :meth:`state`."""
        ...

    def reset_student(self, student: int, network: nn.Module) -> None:
        """Replace one student by ``network`` with a new optimizer state; the others do not change."""
        ...
