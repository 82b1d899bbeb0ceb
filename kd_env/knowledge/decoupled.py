"""``tckd`` and ``nckd``: the response in two parts, each with its own strength (decoupled KD, Zhao et al. 2022, arXiv 2203.08679).

With ``t`` the true label, ``p`` teacher and ``q`` student at the student's temperature ``tau``:

- ``tckd = tau^2 KL([p_t, 1 - p_t] || [q_t, 1 - q_t])``: how sure of the true class;
- ``nckd = tau^2 KL(p^ || q^)``, ``p^`` and ``q^`` the probabilities given that the class is not ``t``: what else it could be.

``tau^2 KL(p || q) = tckd + (1 - p_t) nckd``, so ``nckd`` alone does not fade where the teacher is sure. The paper's alpha and beta are
the strengths. With ``class_of=teacher`` (ours) ``t`` is each teacher's own surest class, and no label is read.

Deviation: the other classes are taken out, where the release subtracts 1000 from the logit of ``t``; so it is exact for any logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.knowledge.response import kl, squared
from kd_env.types import ModelOutput

ClassOf = Literal["label", "teacher"]


@dataclass(frozen=True)
class _Decoupled(Knowledge):
    """One part of the response, which :meth:`part` makes of logits."""

    needs: ClassVar[Part] = "logits"
    rowwise: ClassVar[bool] = True

    class_of: ClassOf = "label"

    def __post_init__(self) -> None:
        """Refuse anything but ``label`` and ``teacher``."""
        if self.class_of not in get_args(ClassOf):
            raise InputError(f"class_of={self.class_of!r}: it must be one of {', '.join(get_args(ClassOf))}")

    @property
    def reads_labels(self) -> bool:
        """Where the label says the class."""
        return self.class_of == "label"

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's logits ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """KL between that part of teacher and student, times ``tau^2``; ``target [..., C]`` -> ``[...]``; leading axes broadcast."""
        temperature, classes = student.temperature, _classes(self.class_of, student, target)
        p, q = self.part(target / temperature, classes), self.part(student.logits / temperature, classes)
        return squared(temperature) * kl(p, q)

    def part(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Logits ``[..., C]`` -> logits of what is compared."""
        raise NotImplementedError


@dataclass(frozen=True)
class TargetClass(_Decoupled):
    """``tckd``: the teacher's certainty of the true class, that class against all others.

    Attributes:
        class_of: who says which class that is, the ``label`` or the ``teacher``.
    """

    def part(self, logits: Tensor, classes: Tensor) -> Tensor:
        """That class and all others together ``[..., 2]``; never ``log(1 - p)``, which rounds to -inf."""
        others = _others(logits, classes).logsumexp(-1, keepdim=True)
        return torch.cat([torch.take_along_dim(logits, classes[..., None], -1), others], -1)


@dataclass(frozen=True)
class NonTargetClass(_Decoupled):
    """``nckd``: the teacher's probabilities among the other classes; zero with two classes.

    Attributes:
        class_of: who says which class the others are other than, the ``label`` or the ``teacher``.
    """

    def part(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The classes but that one ``[..., C - 1]``."""
        return _others(logits, classes)


def _classes(class_of: ClassOf, student: ModelOutput, target: Tensor) -> Tensor:
    """The classes ``t``, ``[...]``; of equals the first."""
    if class_of == "teacher":
        return target.argmax(-1)
    assert student.labels is not None
    return student.labels


def _others(logits: Tensor, classes: Tensor) -> Tensor:
    """Logits of the classes but that one, ``[..., C]`` -> ``[..., C - 1]``."""
    places = torch.arange(logits.shape[-1] - 1, device=logits.device)
    return torch.take_along_dim(logits, places + (places >= classes[..., None]), -1)
