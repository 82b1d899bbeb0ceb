"""The loss: what a decision comes to. In: a decision, what students say, what teachers say. Out: the loss of each example.

    L_b = sum_m s_bm sum_k w_bmk L_m(b, k)

``label``, the hard label, is one of the types m and asks no teacher. It is there only where labels are part of the setting. Types that ask
the other students of a population ask no teacher either: no weights w apply to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_env.distillation.settings import Settings
from kd_env.errors import InputError
from kd_env.knowledge import LossContext, label
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.spec import unknown
from kd_env.tasks import Task
from kd_env.types import Batch, Decision, ModelOutput


class Loss:
    """The knowledge types of a setting, ready to be asked."""

    def __init__(self, settings: Settings, task: Task) -> None:
        """Read the types.

        Raises:
            InputError: a type cannot be read, or reads training labels that are not part of the setting or unknown.
        """
        self.terms = {term.name: term for term in parse_terms(settings.knowledge)}
        self.parts = extra_outputs(list(self.terms.values()))  # what the students must show beyond logits and features
        self.reads_labels = settings.kd_weight < 1.0
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

    def per_teacher(self, name: str, temperature: float | Tensor, student: ModelOutput, features: Batch) -> Tensor:
        """Loss of every example against every teacher ``[rows, K]`` by knowledge type ``name``, of ``label`` ``[rows, 1]``.

        Args:
            temperature: a number, or one a row ``[rows]``.
            student: what the students say of the examples of ``features``.

        Raises:
            InputError: no such type in this setting.
        """
        if name == "label":
            return label.loss(student, features.labels)[:, None]
        if name not in self.terms:
            raise unknown("knowledge type", name, [*self.terms, "label"])
        labels = features.labels if self.reads_labels else None
        context = LossContext(temperature[:, None] if isinstance(temperature, Tensor) else temperature, labels)
        return self.terms[name].kind.losses(student, features, context)

    def per_example(self, decision: Decision, student: ModelOutput, features: Batch) -> Tensor:
        """The loss of each example ``[rows]``, differentiable."""
        total: Tensor | None = None  # [rows]
        for name, strength in decision.strengths.items():
            if not isinstance(strength, Tensor) and strength == 0.0:
                continue
            every = self.per_teacher(name, decision.temperature, student, features)
            asks_teachers = name != "label" and not self.terms[name].kind.asks_peers
            term = strength * ((decision.weights[name] * every).sum(1) if asks_teachers else every[:, 0])
            total = term if total is None else total + term
        if decision.penalty is not None:
            total = decision.penalty if total is None else total + decision.penalty
        return torch.zeros_like(features.student.logits[:, 0]) if total is None else total
