"""Let teachers learn from what their student has learned: "Learning to Teach with Student Feedback" (Liu et al. 2021, arXiv 2109.04641).

In: a run that is about to take a step, and its decision. Out: teachers whose parameters phi have followed the student's held-out loss
through that step. The *course* step is the student's own; the *exam* step is

    phi <- Adam( d/dphi [ CE(theta - rate P dL(theta, phi)/dtheta; exam) + label_weight sum_k CE(T_k; exam) ] )

with L the loss of the decision on the mini-batch (the retained forward pass, with its dropout), P the student's preconditioner, a constant
(1 for SGD and before the first step of Adam). The gradient is exact for that step: the mixed second derivative of L, by differentiating
``<rate P dL/dtheta, v>`` by phi, with v the gradient of the exam loss at the new parameters. The student's own step uses the answers of
before the exam step. Momentum and weight decay of the student's optimizer are not part of the tracked step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.distillation.learning_options import LearningOptions
from kd_env.distillation.loss import Loss
from kd_env.errors import InputError
from kd_env.models.any_classifier import AnyClassifier
from kd_env.serialization import add_prefix, with_prefix
from kd_env.student.optimizer import load_optimizer, optimizer_tensors
from kd_env.student.protocol import Students
from kd_env.teachers.live import LiveTeachers
from kd_env.types import Batch, Decision, Inputs, ModelOutput


@dataclass(frozen=True)
class StudentStep:
    """The step that a student is about to take.

    Attributes:
        student: one student.
        loss: loss of the setting.
        output: output of the retained forward pass.
        batch: observed mini-batch.
        decision: how it is taught.
        raw_inputs: inputs of the mini-batch for the teachers, ``[B, ...]``.
        temperatures: what the teachers' logits are divided by, ``[K]``; ``None`` for nothing.
    """

    student: Students
    loss: Loss
    output: ModelOutput
    batch: Batch
    decision: Decision
    raw_inputs: np.ndarray
    temperatures: np.ndarray | None = None


@dataclass(frozen=True)
class Exam:
    """Held-out examples.

    Attributes:
        inputs: inputs of the student.
        raw_inputs: inputs of the teachers, ``[n, ...]``.
        labels: labels ``[n]``.
    """

    inputs: Inputs
    raw_inputs: np.ndarray
    labels: Tensor


class LearningTeachers:
    """Copies of the teachers' networks that learn in one run.

    Attributes:
        teachers: the networks; they answer in evaluation mode.
        optimizer: Adam on the parameters of all teachers.
        forward_examples: number of examples that have passed through teachers in exam steps.
    """

    def __init__(self, live: LiveTeachers, options: LearningOptions, device: torch.device, dtype: torch.dtype) -> None:
        """Copy the networks.

        Raises:
            InputError: a network cannot learn.
        """
        self.options = options
        for teacher in live.teachers:
            if isinstance(teacher.network, AnyClassifier):
                kind = type(teacher.network.model).__name__
                raise InputError(
                    f"teacher_learning: teacher {teacher.name!r} is a {kind}, which teaches as it is; use teachers that kd-env teach trains"
                )
        self.teachers = live.copied(device, dtype)
        self.parameters = [parameter for teacher in self.teachers.teachers for parameter in teacher.network.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.options.lr)
        self.forward_examples = 0

    def exam_step(self, step: StudentStep, exam: Exam) -> None:
        """Take the exam step for the step that a student is about to take; a gradient that is not finite is left out."""
        gradient = self.gradient(step, exam)
        if not all(values.isfinite().all() for values in gradient):
            return
        for parameter, values in zip(self.parameters, gradient, strict=True):
            parameter.grad = values
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def gradient(self, step: StudentStep, exam: Exam) -> list[Tensor]:
        """Return the gradient of the exam step by the parameters of all teachers; student and teachers do not change."""
        options, total = self.options, [torch.zeros_like(parameter) for parameter in self.parameters]
        if options.feedback_weight > 0.0:
            feedback = self._feedback(step, exam)
            total = [before + options.feedback_weight * values for before, values in zip(total, feedback, strict=True)]
        if options.label_weight > 0.0:
            outputs = self.teachers(exam.raw_inputs)
            loss = torch.stack([cross_entropy(output.logits, exam.labels) for output in outputs]).sum()
            slopes = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            total = [before + options.label_weight * values for before, values in zip(total, slopes, strict=True)]
            self.forward_examples += len(self.teachers.teachers) * len(exam.labels)
        return total

    def state(self) -> dict[str, Tensor]:
        """Return weights and optimizer state by name."""
        tensors = {"forward_examples": torch.tensor(self.forward_examples), **add_prefix(optimizer_tensors(self.optimizer), "adam")}
        for k, teacher in enumerate(self.teachers.teachers):
            tensors |= add_prefix(teacher.network.state_dict(), str(k))
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a copy of what :meth:`state` returned."""
        for k, teacher in enumerate(self.teachers.teachers):
            teacher.network.load_state_dict(with_prefix(tensors, str(k)))
        self.forward_examples = int(tensors["forward_examples"])
        load_optimizer(self.optimizer, with_prefix(tensors, "adam"))

    def _feedback(self, step: StudentStep, exam: Exam) -> tuple[Tensor, ...]:
        """Return the gradient of the student's exam loss after its step, by the teachers' parameters."""
        student, batch = step.student, self._with_answers(step)
        loss = step.loss.per_example(step.decision.detach(), step.output, batch).mean()
        if not loss.requires_grad:
            return tuple(torch.zeros_like(parameter) for parameter in self.parameters)
        slopes = torch.autograd.grad(loss, student.parameters, create_graph=True, materialize_grads=True)
        rate = student.options.rate(float(batch.progress[0]))
        moves = [rate * scale * slope for scale, slope in zip(student.preconditioner(), slopes, strict=True)]
        stepped = [(parameter - move).detach().requires_grad_() for parameter, move in zip(student.parameters, moves, strict=True)]
        with student.evaluating():
            held_out = cross_entropy(student.forward_at(stepped, exam.inputs).logits, exam.labels)
        slopes_after = torch.autograd.grad(held_out, stepped, materialize_grads=True)
        gain = torch.stack([(move * slope).sum() for move, slope in zip(moves, slopes_after, strict=True)]).sum()
        if not gain.requires_grad:  # no teacher has weight
            return tuple(torch.zeros_like(parameter) for parameter in self.parameters)
        return torch.autograd.grad(-gain, self.parameters, retain_graph=True, materialize_grads=True)  # the step needs the graph again

    def _with_answers(self, step: StudentStep) -> Batch:
        """Return the mini-batch with answers of the teachers that are differentiable by their parameters."""
        names = step.loss.extra_outputs
        outputs = self.teachers(step.raw_inputs, names)
        self.forward_examples += len(outputs) * len(step.raw_inputs)
        logits = torch.stack([output.logits for output in outputs], 1)
        if step.temperatures is not None:
            logits = logits / torch.from_numpy(step.temperatures).to(logits)[:, None]
        extra: dict[str, Any] = {f"teacher_{name}": tuple(output.named(name) for output in outputs) for name in names if "." not in name}
        if len(extra) < len(names):
            extra["teacher_stages"] = tuple(output.stages for output in outputs)
        return replace(step.batch, teacher_logits=logits, teacher_features=tuple(output.features for output in outputs), **extra)
