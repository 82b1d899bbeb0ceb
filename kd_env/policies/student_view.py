"""Give a policy restricted access to its student: forward passes, and gradients if its access includes them. All passes are counted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import Distillation
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import TRAIN_ONLY
from kd_env.models.encode import take
from kd_env.models.modes import running_statistics, without_dropout
from kd_env.models.stages import output_of
from kd_env.policies.access import GRADIENT, LABELS, REWARD_LABELS, Restricted, needs, require
from kd_env.policies.positions import granted_positions
from kd_env.types import Batch, Decision, Inputs, ModelOutput


class StudentView(Restricted):
    """A lone student and its loss."""

    def __init__(self, selection: Selection, name: str, access: str, reward_positions: np.ndarray, run: Distillation | None = None) -> None:
        """Show the student of ``run`` to policy ``name``; by default the one that ``selection`` is teaching at the time of each call."""
        super().__init__(name, access)
        self._selection, self._fixed_run = selection, run
        self._reward_positions = reward_positions  # whose labels there are

    def of_this_run(self) -> StudentView:
        """Return a view that keeps showing the student that is being taught now, also after the next student begins."""
        return StudentView(self._selection, self.name, self.access, self._reward_positions, self._run)

    @property
    def _run(self) -> Distillation:
        return self._fixed_run or self._selection.distillation

    @property
    @needs(GRADIENT, "student")
    def parameters(self) -> list[Tensor]:
        """The student's parameters."""
        return self._run.student.parameters

    def rate(self, progress: float) -> float:
        """Return the student's learning rate at ``progress`` in [0, 1)."""
        return self._run.student.options.rate(progress)

    def evaluating(self) -> AbstractContextManager[None]:
        """Put the student in evaluation mode inside the block."""
        return self._run.student.evaluating()

    def without_dropout(self) -> AbstractContextManager[None]:
        """Put the student in evaluation mode inside the block, except BatchNorm, which normalises by the mini-batch as in training."""
        student = self._run.student
        return without_dropout(student.network) if running_statistics(student.network) else student.evaluating()

    def predict(self, inputs: Inputs) -> Tensor:
        """Return logits ``[n, C]`` in evaluation mode."""
        self._count(inputs)
        return self._run.student.predict(inputs)

    @needs(GRADIENT, "student")
    def forward_at(self, parameters: Sequence[Tensor], inputs: Inputs) -> ModelOutput:
        """Return the outputs that the student would have with other ``parameters``, differentiable in them."""
        self._count(inputs)
        return self._run.student.forward_at(parameters, inputs, self._run.loss.extra_outputs)

    def batch_inputs(self) -> Inputs:
        """Return the student's inputs of the mini-batch about to be taught."""
        return {name: tensor.clone() for name, tensor in self._run.batch_inputs().items()}

    @torch.no_grad()
    def output(self) -> ModelOutput:
        """Return all outputs of the student for the mini-batch about to be taught, without gradient."""
        return self._run.student_output().map(lambda tensor: tensor.detach().clone())

    @torch.no_grad()
    def forward(self, inputs: Inputs) -> ModelOutput:
        """Return all outputs of the student for ``inputs`` in evaluation mode, without gradient."""
        self._count(inputs)
        run = self._run
        with run.student.evaluating():
            return run.student.forward(inputs, run.loss.extra_outputs)

    def per_teacher_loss(self, name: str, output: ModelOutput, batch: Batch) -> Tensor:
        """Return the loss ``[n, K]`` of knowledge type ``name`` at the setting's temperature."""
        run = self._run
        return run.loss.per_teacher(name, run.settings.temperature, output, batch)

    def per_example_loss(self, decision: Decision, output: ModelOutput, batch: Batch) -> Tensor:
        """Return the loss ``[n]`` of some outputs under ``decision``."""
        return self._run.loss.per_example(decision, output, batch)

    def examples(self, split: Literal["train", "reward"], positions: np.ndarray) -> tuple[Inputs, Batch]:
        """Return examples of a split whose labels the access includes: the student's inputs, and a batch with the teachers' outputs.

        The field ``student`` of the batch still holds the observed mini-batch; pass your own outputs to the losses.

        Raises:
            InputError: the access does not include the labels of the split, or the run does not have those of some examples, or several
                students teach each other.
        """
        require(self.name, self.access, f"student.examples({split!r})", REWARD_LABELS if split == "reward" else LABELS)
        if split == "reward":
            positions = granted_positions(positions, self._reward_positions, self.name, "student.examples('reward')")
        run, data = self._run, self._selection.data
        if run.num_students > 1:
            raise InputError(f"policy {self.name!r}: student.examples is of one student; use it without peers (num_students=1)")
        observed = run.observe()
        kept = frozenset(name for name in run.loss.extra_outputs if split == "train" or output_of(name) not in TRAIN_ONLY)
        batch = data.batch(split, positions, observed.student, observed.update, observed.progress, kept, run.teacher_temperatures)
        return take(data.inputs[split], positions, run.student.device), batch

    @needs(LABELS, "student")
    def observed(self) -> Batch:
        """Return a copy of the mini-batch about to be taught, with its labels."""
        return self._run.observe().of_students(range(self._run.num_students))

    def _count(self, inputs: Inputs) -> None:
        self._run.state.forward_examples += len(next(iter(inputs.values())))
