"""The loss: what a decision means. In: a decision, student outputs, a batch. Out: the loss of each example.

    L_b = sum_m s_bm sum_k w_bmk L_m(b, k)

``label``, the hard label, is one of the types m and asks no teacher. It is there only where labels are part of the setting. Types that ask
the other students of a population ask no teacher either: no weights w apply to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_env.distillation.settings import DistillationSettings
from kd_env.errors import InputError
from kd_env.knowledge import LossContext, label
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.spec import unknown
from kd_env.tasks import Task
from kd_env.types import Batch, Decision, ModelOutput


class Loss:
    """The knowledge types of a setting as one loss."""

    def __init__(self, settings: DistillationSettings, task: Task) -> None:
        """Read the types.

        Raises:
            InputError: a type cannot be read, or reads training labels that are not part of the setting or unknown.
        """
        self.terms = {term.name: term for term in parse_terms(settings.knowledge)}
        self.extra_outputs = extra_outputs(list(self.terms.values()))  # what students compute beyond logits and features
        self.reads_labels = settings.reads_labels
        for term in self.terms.values():
            if not term.kind.reads_labels:
                continue
            if not self.reads_labels:
                raise InputError(
                    f"knowledge={settings.knowledge!r}: {term.name} reads the training labels, which are not part of this setting "
                    "(kd_weight=1); leave it out, or give a lower kd_weight"
                )
            if task.unlabelled:
                raise InputError(
                    f"knowledge={settings.knowledge!r}: {term.name} reads the training labels, and task {task.name!r} has examples "
                    "without; leave it out, or the unlabelled examples"
                )
        self.asks_peers = any(term.kind.asks_peers for term in self.terms.values())

    def per_teacher(self, name: str, temperature: float | Tensor, student: ModelOutput, batch: Batch) -> Tensor:
        """Return the loss of every example against every teacher, ``[rows, K]``, of ``label`` ``[rows, 1]``.

        Args:
            name: a knowledge type of the setting, or ``label``.
            temperature: a number, or one per row ``[rows]``.
            student: the students' outputs for the examples of ``batch``.

        Raises:
            InputError: no such type in this setting.
        """
        if name == "label":
            return label.loss(student, batch.labels)[:, None]
        if name not in self.terms:
            raise unknown("knowledge type", name, [*self.terms, "label"])
        labels = batch.labels if self.reads_labels else None
        context = LossContext(temperature[:, None] if isinstance(temperature, Tensor) else temperature, labels)
        return self.terms[name].kind.losses(student, batch, context)

    def per_example(self, decision: Decision, student: ModelOutput, batch: Batch) -> Tensor:
        """Return the loss of each example ``[rows]``, differentiable."""
        total: Tensor | None = None  # [rows]
        for name, strength in decision.strengths.items():
            if not isinstance(strength, Tensor) and strength == 0.0:
                continue
            per_teacher = self.per_teacher(name, decision.temperature, student, batch)
            asks_teachers = name != "label" and not self.terms[name].kind.asks_peers
            term = strength * ((decision.weights[name] * per_teacher).sum(1) if asks_teachers else per_teacher[:, 0])
            total = term if total is None else total + term
        if decision.penalty is not None:
            total = decision.penalty if total is None else total + decision.penalty
        return torch.zeros_like(batch.student.logits[:, 0]) if total is None else total
