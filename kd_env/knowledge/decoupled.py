"""``tckd`` and ``nckd``: the response in two parts, each with its own strength (decoupled KD, Zhao et al. 2022, arXiv 2203.08679).

``t`` is the true class, and ``p`` and ``q`` are the teacher's and the student's probabilities at temperature ``tau``:

- ``tckd = tau^2 KL([p_t, 1 - p_t] || [q_t, 1 - q_t])`` compares the certainty about the true class;
- ``nckd = tau^2 KL(p^ || q^)`` compares the other classes; ``p^`` and ``q^`` are the probabilities given that the class is not ``t``.

``tau^2 KL(p || q) = tckd + (1 - p_t) nckd``, so ``nckd`` alone does not vanish if the teacher is certain. The paper's alpha and beta are
the strengths. With ``class_of=teacher``, an addition of this project, ``t`` is each teacher's most probable class, and no label is read.

Deviation: ``nckd`` removes the logit of ``t``, which is exact for any logits. The released code subtracts 1000 from it instead.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge.context import LossContext
from kd_env.knowledge.response import kl
from kd_env.knowledge.rowwise import RowwiseKnowledge
from kd_env.types import ModelOutput

ClassOf = Literal["label", "teacher"]


@dataclass(frozen=True)
class _Decoupled(RowwiseKnowledge):
    """One part of the response, which :meth:`part` computes from logits."""

    class_of: ClassOf = "label"

    def __post_init__(self) -> None:
        """Check ``class_of``."""
        if self.class_of not in get_args(ClassOf):
            raise InputError(f"class_of={self.class_of!r}: it must be one of {', '.join(get_args(ClassOf))}")

    @property
    def reads_labels(self) -> bool:
        """Whether the label is the target class."""
        return self.class_of == "label"

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's logits ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the KL of this part at temperature 1, ``[...]``; it needs ``class_of=teacher``, since there are no labels here."""
        return self.loss_in_context(student, target, LossContext())

    def loss_in_context(self, student: ModelOutput, target: Tensor, context: LossContext) -> Tensor:
        """Return the KL of this part times ``tau^2``; ``target [..., C]`` -> ``[...]``; leading axes broadcast."""
        classes = target.argmax(-1) if self.class_of == "teacher" else context.labels  # [...], the first of equal maxima
        assert classes is not None, "class_of=label reads the labels"
        p, q = (self.part(logits / context.temperature, classes) for logits in (target, student.logits))
        return context.temperature_squared * kl(p, q)

    @abstractmethod
    def part(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the logits of the distribution that is compared, from logits ``[..., C]`` and target classes ``[...]``."""


@dataclass(frozen=True)
class TargetClass(_Decoupled):
    """Match the teacher's certainty about the true class against all other classes (``tckd``).

    Attributes:
        class_of: source of the true class, ``label`` or ``teacher``.
    """

    def part(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the logits of the target class and of all other classes together, ``[..., 2]``. ``log(1 - p)`` would round to -inf."""
        others = _others(logits, classes).logsumexp(-1, keepdim=True)
        return torch.cat([torch.take_along_dim(logits, classes[..., None], -1), others], -1)


@dataclass(frozen=True)
class NonTargetClass(_Decoupled):
    """Match the teacher's probabilities among the other classes (``nckd``); zero with two classes.

    Attributes:
        class_of: source of the class that is left out, ``label`` or ``teacher``.
    """

    def part(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the logits of all classes except the target class, ``[..., C - 1]``."""
        return _others(logits, classes)


def _others(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logits of all classes except ``classes``, ``[..., C]`` -> ``[..., C - 1]``."""
    index = torch.arange(logits.shape[-1] - 1, device=logits.device)
    return torch.take_along_dim(logits, index + (index >= classes[..., None]), -1)
