"""Compute the loss of a decision. In: a decision, student outputs, a batch. Out: the loss of each example.

    L_b = sum_m s_bm sum_k w_bmk L_m(b, k)

The hard label is the knowledge type ``label``. It has a strength but no weights, and it exists only if hard labels are used.
Types that compare a student with the other students of a population have no weights either.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import reward_ce
from kd_env.distillation.settings import DistillationSettings
from kd_env.errors import InputError
from kd_env.knowledge import LossContext, label
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.plugins import faults_in
from kd_env.spec import unknown
from kd_env.tasks import Task
from kd_env.types import Batch, Decision, ModelOutput


class Loss:
    """The loss of a setting: the weighted sum of its knowledge types."""

    def __init__(self, settings: DistillationSettings, task: Task) -> None:
        """Parse the knowledge types of the setting.

        Raises:
            InputError: a type cannot be parsed, or it reads training labels that are unknown or not used.
        """
        self.terms = {term.name: term for term in parse_terms(settings.knowledge)}
        self.extra_outputs = extra_outputs(list(self.terms.values()))  # outputs that students compute beyond logits and features
        self.uses_hard_labels = settings.uses_hard_labels
        for term in self.terms.values():
            if not term.knowledge.reads_labels:
                continue
            if not self.uses_hard_labels:
                raise InputError(
                    f"knowledge={settings.knowledge!r}: {term.name} reads the training labels, which this setting does not use "
                    "(kd_weight=1); leave it out, or use a lower kd_weight"
                )
            if task.unlabelled:
                raise InputError(
                    f"knowledge={settings.knowledge!r}: {term.name} reads the training labels, and task {task.name!r} has examples "
                    "without a label; leave it out, or remove the unlabelled examples"
                )
        self.uses_peers = any(term.knowledge.uses_peers for term in self.terms.values())
        self._updates_per_epoch = max(len(task.train) // settings.batch_size, 1)  # rows that fill no mini-batch are left out

    def per_teacher(self, name: str, temperature: float | Tensor, student: ModelOutput, batch: Batch) -> Tensor:
        """Return the loss of each example against each teacher, ``[rows, K]`` (``label``: ``[rows, 1]``).

        It is 0 for students that are in an epoch that leaves the type out (``skip_epochs``).

        Args:
            name: knowledge type of the setting, or ``label``.
            temperature: temperature, a number or ``[rows]``.
            student: outputs of the students for the examples of ``batch``.
            batch: mini-batches with the outputs of the teachers.

        Raises:
            InputError: the setting has no such type.
        """
        if name == "label":
            return label.loss(student, batch.labels)[:, None]
        if name not in self.terms:
            raise unknown("knowledge type", name, [*self.terms, "label"])
        taught = self._taught(name, batch)
        if not taught.any():
            return torch.zeros_like(batch.teacher_logits[:, :, 0])
        labels = batch.labels if self.uses_hard_labels else None
        context = LossContext(temperature[:, None] if isinstance(temperature, Tensor) else temperature, labels)
        kind = self.terms[name].knowledge
        with faults_in(f"knowledge type {name!r}", type(kind)):
            losses = kind.losses(student, batch, context)
        if not isinstance(losses, Tensor) or losses.ndim != 2 or len(losses) != len(student.logits):
            shape = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise InputError(f"knowledge type {name!r}: losses() returned {shape}, expected a tensor [{len(student.logits)}, K]")
        if taught.all():
            return losses
        rows = torch.from_numpy(taught.repeat(len(losses) // len(taught))).to(losses.device)
        return torch.where(rows[:, None], losses, 0.0)

    def per_example(self, decision: Decision, student: ModelOutput, batch: Batch) -> Tensor:
        """Return the loss of each example, ``[rows]``, differentiable."""
        total: Tensor | None = None  # [rows]
        for name, strength in decision.strengths.items():
            if name == reward_ce.NAME or (not isinstance(strength, Tensor) and strength == 0.0):  # reward_ce is about other examples
                continue
            if not self._taught(name, batch).any():
                continue
            per_teacher = self.per_teacher(name, decision.temperature, student, batch)
            uses_teachers = name != "label" and not self.terms[name].knowledge.uses_peers
            term = strength * ((decision.weights[name] * per_teacher).sum(1) if uses_teachers else per_teacher[:, 0])
            total = term if total is None else total + term
        if decision.penalty is not None:
            total = decision.penalty if total is None else total + decision.penalty
        return torch.zeros_like(student.logits[:, 0]) if total is None else total

    def after_epochs(self, update: np.ndarray, count: int) -> np.ndarray:
        """Return which students have learned from all training examples ``count`` times after ``update [S]`` updates, bool, ``[S]``."""
        after: np.ndarray = update >= count * self._updates_per_epoch
        return after

    def is_skipped(self, name: str, batch: Batch) -> bool:
        """Return whether some students are in an epoch that leaves a knowledge type out."""
        return not self._taught(name, batch).all()

    def _taught(self, name: str, batch: Batch) -> np.ndarray:
        """Return which students are past the epochs that leave a knowledge type out, ``[S]``."""
        return self.after_epochs(batch.update, self.terms[name].skip_epochs if name in self.terms else 0)
