"""Define teachers, which map raw inputs to logits and features with their own tokenizer and device, and pools of teachers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.tasks import Task
from kd_env.types import ModelOutput


@runtime_checkable
class Teacher(Protocol):
    """Something to learn from."""

    @property
    def name(self) -> str:
        """A short name, unique within the pool."""
        ...

    def fingerprint(self) -> str:
        """Return the hash of everything that decides the teacher's outputs."""
        ...

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Map raw inputs as the task holds them, ``[B, ...]``, to logits ``[B, C]`` and features ``[B, D]``, float32 on the CPU.

        ``layers [B, L, D]``, ``attention [B, 2, T, T]`` and ``maps [B, D, h, w]`` are ``None`` where the teacher has none. ``stages`` are
        further feature maps by name.
        """
        ...


@runtime_checkable
class HasHead(Protocol):
    """A teacher whose logits are a linear map of its features, and which gives access to that map."""

    def head(self) -> tuple[Tensor, Tensor]:
        """Return weights ``[C, D]`` and biases ``[C]``: logits are ``features @ weights.T + biases``."""
        ...


@runtime_checkable
class HasNotes(Protocol):
    """A teacher that says what was assumed about it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each assumption."""
        ...


def classifiers(pool: Pool) -> list[tuple[Tensor, Tensor]]:
    """Return the linear maps from features to logits of all teachers, ``[C, D_k]`` and ``[C]`` each.

    Raises:
        InputError: a teacher has no ``head()``.
    """
    for teacher in pool.teachers:
        if not isinstance(teacher, HasHead):
            raise InputError(
                f"teacher {teacher.name!r} has no classifier of the task's classes (head()) for features to go through; "
                "leave out the hints, with --set knowledge=response"
            )
    return [teacher.head() for teacher in pool.teachers if isinstance(teacher, HasHead)]


@dataclass(frozen=True)
class NetworkTeacher:
    """A built-in network as a teacher.

    Attributes:
        name: of the teacher.
        network: the trained network.
        task: the task whose raw inputs it reads.
        logit_scale: multiplies the logits; above 1 the teacher is more certain of the same answers.
    """

    name: str
    network: nn.Module
    task: Task
    logit_scale: float = 1.0

    def fingerprint(self) -> str:
        """Return the hash of the weights and the scale."""
        digest = hashlib.sha256(f"{self.name}:{self.logit_scale}".encode())
        for key, tensor in self.network.state_dict().items():
            digest.update(key.encode() + tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Run the network in evaluation mode and return logits, features, layers, attention and the last feature map."""
        return self.forward(inputs, frozenset({"layers", "attention", "maps"}))

    @torch.no_grad()
    def forward(self, inputs: np.ndarray, extra_outputs: frozenset[str]) -> ModelOutput:
        """Run the network in evaluation mode; ``extra_outputs`` names what to return besides logits and features."""
        self.network.eval()
        output: ModelOutput = self.network(extra_outputs=extra_outputs, **encode(self.task, inputs))
        return output._replace(logits=output.logits * self.logit_scale)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return weights ``[C, D]`` and biases ``[C]`` of its classifier, with the scale."""
        classifier = self.network.classifier
        assert isinstance(classifier, nn.Linear)
        return classifier.weight.detach() * self.logit_scale, classifier.bias.detach() * self.logit_scale


def _is_index(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass(frozen=True)
class Drift:
    """A change of the teachers during a run, as when a served model is replaced without notice.

    From the change on, teacher k answers as teacher ``roles[k]`` did before. Only the mini-batches that students learn from show it. What
    else a policy gets of the teachers stays as it is at the start: their answers on the reward split, and their classifiers.

    Attributes:
        at: part of a student's updates after which the teachers change, in (0, 1).
        roles: a permutation of the K teachers.
    """

    at: float
    roles: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        spec.numbers("Drift", above=0, below=1, at=self.at)
        if not all(map(_is_index, self.roles)) or sorted(self.roles) != list(range(len(self.roles))):
            raise InputError(f"Drift(roles={self.roles}): must be a permutation of 0..{len(self.roles) - 1}")


@dataclass(frozen=True)
class Pool:
    """K teachers of one task.

    Attributes:
        name: of the pool.
        teachers: the K teachers.
        best_for_group: per group, the index of the teacher of that group by construction: of a built-in pool its best teacher, of
            checkpoints the one that was trained on it, which says nothing about its quality. ``None`` where that is not known.
        best_for_class: per class, the index of the best teacher for its examples by construction; ``None`` where that is not known or does
            not depend on the class.
        drift: how the teachers change during a run; ``None`` where they do not. Both of the above are true before the change.
    """

    name: str
    teachers: tuple[Teacher, ...]
    best_for_group: tuple[int, ...] | None = None
    best_for_class: tuple[int, ...] | None = None
    drift: Drift | None = None

    def __post_init__(self) -> None:
        """Refuse an empty pool, names that are not unique, best teachers that do not exist, and a drift of other teachers."""
        if not self.teachers:
            raise InputError(f"pool {self.name!r} has no teachers; name at least one")
        if len(set(self.names)) != len(self.teachers):
            raise InputError(
                f"pool {self.name!r}: teacher names must be unique, got {', '.join(self.names)}; rename one, for example its folder"
            )
        for name in ("best_for_group", "best_for_class"):
            best = getattr(self, name)
            if best is not None and not all(_is_index(k) and 0 <= k < len(self.teachers) for k in best):
                raise InputError(f"pool {self.name!r}: {name}={best!r} must be indices of its teachers, 0 to {len(self.teachers) - 1}")
        if self.drift is not None and len(self.drift.roles) != len(self.teachers):
            raise InputError(f"pool {self.name!r} has {len(self.teachers)} teachers, and its drift has {len(self.drift.roles)} roles")

    @property
    def names(self) -> tuple[str, ...]:
        """The teachers' names, in order."""
        return tuple(teacher.name for teacher in self.teachers)

    def select(self, names: list[str]) -> Pool:
        """Return a pool of the named teachers, in that order; what is known of the best teachers is kept if all of those teachers stay.

        Raises:
            InputError: the pool has a drift, and a named teacher takes the role of one that is not named.
        """
        index = [self.names.index(name) for name in names]

        def kept(best: tuple[int, ...] | None) -> tuple[int, ...] | None:
            return tuple(index.index(k) for k in best) if best is not None and set(best) <= set(index) else None

        return Pool(
            f"{self.name}[{'+'.join(names)}]",
            tuple(self.teachers[k] for k in index),
            kept(self.best_for_group),
            kept(self.best_for_class),
            None if self.drift is None else self._drift_of(index, self.drift),
        )

    def _drift_of(self, index: list[int], drift: Drift) -> Drift:
        roles = [drift.roles[k] for k in index]
        if left_out := sorted(set(roles) - set(index)):
            missing = ", ".join(self.names[k] for k in left_out)
            raise InputError(f"pool {self.name!r}: these teachers take the place of {missing} during a run; name those too")
        return Drift(drift.at, tuple(index.index(k) for k in roles))
