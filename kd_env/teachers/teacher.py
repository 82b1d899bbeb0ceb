"""What a teacher is: anything that maps raw inputs to logits and features. Tokenizers and devices are its own business."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.tasks import Task
from kd_env.types import ModelOutput


class Teacher(Protocol):
    """Something to learn from."""

    @property
    def name(self) -> str:
        """Short and unique within the pool."""
        ...

    def fingerprint(self) -> str:
        """Hash of everything that decides what the teacher says."""
        ...

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Raw inputs as the task holds them, ``[B, ...]`` -> logits ``[B, C]``, features ``[B, D]``, float32, on the CPU.

        ``layers [B, L, D]`` and ``attention [B, 2, T, T]`` are left ``None`` by a teacher that has none to show.
        """
        ...


@runtime_checkable
class HasHead(Protocol):
    """A teacher whose logits are a linear map of its features, and which shows that map."""

    def head(self) -> tuple[Tensor, Tensor]:
        """Weights ``[C, D]`` and biases ``[C]``: logits are ``features @ weights.T + biases``."""
        ...


def classifiers(pool: Pool) -> list[tuple[Tensor, Tensor]]:
    """The linear maps from features to logits of all teachers: ``[C, D_k]``, ``[C]`` each.

    Raises:
        InputError: a teacher shows none.
    """
    for teacher in pool.teachers:
        if not isinstance(teacher, HasHead):
            raise InputError(f"teacher {teacher.name!r} shows no classifier (head()) for features to go through; leave out the hints")
    return [teacher.head() for teacher in pool.teachers if isinstance(teacher, HasHead)]


@dataclass(frozen=True)
class NetworkTeacher:
    """A built-in network as a teacher.

    Attributes:
        logit_scale: multiplies the logits; above 1 the teacher is more sure of the same answers.
    """

    name: str
    network: nn.Module
    task: Task
    logit_scale: float = 1.0

    def fingerprint(self) -> str:
        """Hash of the weights and the scale."""
        digest = hashlib.sha256(f"{self.name}:{self.logit_scale}".encode())
        for key, tensor in self.network.state_dict().items():
            digest.update(key.encode() + tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Speak, in evaluation mode."""
        self.network.eval()
        output: ModelOutput = self.network(extra_outputs=frozenset({"layers", "attention"}), **encode(self.task, inputs))
        return output._replace(logits=output.logits * self.logit_scale)

    def head(self) -> tuple[Tensor, Tensor]:
        """Its classifier."""
        classifier = self.network.classifier
        assert isinstance(classifier, nn.Linear)
        return classifier.weight.detach() * self.logit_scale, classifier.bias.detach() * self.logit_scale


@dataclass(frozen=True)
class Pool:
    """K teachers of one task.

    Attributes:
        best_for_group: per group, the index of the teacher known by construction to be the one of the group: of a built-in pool its best;
            of checkpoints the one that was taught it, which says nothing about how good it is. ``None`` where nobody knows.
    """

    name: str
    teachers: tuple[Teacher, ...]
    best_for_group: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse an empty pool and names that are not unique."""
        if not self.teachers:
            raise InputError(f"pool {self.name!r} has no teachers; name at least one")
        if len(set(self.names)) != len(self.teachers):
            raise InputError(f"pool {self.name!r}: teacher names must be unique, got {', '.join(self.names)}; rename one, a folder say")

    @property
    def names(self) -> tuple[str, ...]:
        """The teachers' names, in order."""
        return tuple(teacher.name for teacher in self.teachers)

    def select(self, names: list[str]) -> Pool:
        """The named teachers alone, in that order; what was known about the best one is kept if all of those stay."""
        index = [self.names.index(name) for name in names]
        best = self.best_for_group
        kept = tuple(index.index(k) for k in best) if best is not None and set(best) <= set(index) else None
        return Pool(f"{self.name}[{'+'.join(names)}]", tuple(self.teachers[k] for k in index), kept)
