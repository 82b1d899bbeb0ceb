"""Teachers with errors of a known kind: :class:`ErringTeacher` changes the logits of another teacher.

The errors are a function of the input, so that a teacher answers the same input in the same way wherever and whenever it is asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_env.teachers.teacher import Teacher
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class RandomErrors:
    """Errors that are drawn for each input on its own, and thus average out in a student.

    An input with an error has the logits of all classes moved on by the same random number of classes, so the teacher is as certain of the
    wrong answer as it was of its own.

    Attributes:
        rate: probability of an error.
        seed: of the draws.
    """

    rate: float
    seed: int = 0

    def apply(self, inputs: np.ndarray, logits: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` with errors."""
        draws = np.array([_draws(value, self.seed) for value in inputs]).reshape(-1, 2)  # [B, 2] in [0, 1)
        classes = logits.shape[1]
        moved = 1 + (draws[:, 1] * (classes - 1)).astype(np.int64)  # [B], 1 to C - 1
        shift = torch.from_numpy(np.where(draws[:, 0] < self.rate, moved, 0))
        return logits.gather(1, (torch.arange(classes) - shift[:, None]) % classes)


@dataclass(frozen=True)
class Confusions:
    """Errors that are the same for all inputs of a class, so that a student learns them.

    Attributes:
        taken_for: pairs of a class and the class that it is taken for, whose answer gets the probability of both.
    """

    taken_for: tuple[tuple[int, int], ...]

    def apply(self, inputs: np.ndarray, logits: Tensor) -> Tensor:
        """Return the logits ``[B, C]`` with errors."""
        confused = logits.clone()
        for missing, answered in self.taken_for:
            confused[:, answered] = torch.logaddexp(confused[:, answered], logits[:, missing])
            confused[:, missing] = logits.amin(1)
        return confused


Errors = RandomErrors | Confusions


@dataclass(frozen=True)
class ErringTeacher:
    """A teacher with errors.

    Its features are its logits, since those of the other teacher would tell which answers are wrong. It has no layers and no attention.

    Attributes:
        teacher: the teacher whose logits are changed.
        errors: how they are changed.
        num_classes: number of classes C.
    """

    teacher: Teacher
    errors: Errors
    num_classes: int

    @property
    def name(self) -> str:
        """Its name, which is that of the other teacher."""
        return self.teacher.name

    def fingerprint(self) -> str:
        """Return the hash of teacher and errors."""
        return hashlib.sha256(f"{self.teacher.fingerprint()}:{self.errors}".encode()).hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Return the changed logits, also as features."""
        logits = self.errors.apply(inputs, self.teacher(inputs).logits)
        return ModelOutput(logits, logits)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the identity, since logits are features."""
        return torch.eye(self.num_classes), torch.zeros(self.num_classes)


def _draws(value: object, seed: int) -> tuple[float, float]:
    """Return two numbers in [0, 1) that depend on an input and on the seed."""
    content = value.tobytes() if isinstance(value, np.ndarray) else str(value).encode()
    digest = hashlib.blake2b(content, digest_size=16, salt=seed.to_bytes(8, "little")).digest()
    first, second = (int.from_bytes(part, "little") >> 11 for part in (digest[:8], digest[8:]))
    return first / 2**53, second / 2**53
