"""``tckd`` and ``nckd``: the response in two parts, each with its own strength (decoupled KD, Zhao et al. 2022, arXiv 2203.08679).

With ``t`` the true label, ``p`` teacher and ``q`` student at the student's temperature ``tau``:

- ``tckd = tau^2 KL([p_t, 1 - p_t] || [q_t, 1 - q_t])``: how sure of the true class;
- ``nckd = tau^2 KL(p^ || q^)``, ``p^`` and ``q^`` the probabilities given that the class is not ``t``: what else it could be.

``tau^2 KL(p || q) = tckd + (1 - p_t) nckd``, so ``nckd`` alone does not fade where the teacher is sure. The paper's alpha and beta are
the strengths.

Deviation: the other classes are taken out, where the release subtracts 1000 from the logit of ``t``; so it is exact for any logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.knowledge.response import kl, squared
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class TargetClass(Knowledge):
    """``tckd``: the teacher's certainty of the true class."""

    needs: ClassVar[Part] = "logits"
    rowwise: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's logits ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Binary KL, true class against all others, times ``tau^2``; ``target [..., C]`` -> ``[...]``; leading axes broadcast."""
        assert student.labels is not None
        temperature, labels = student.temperature, student.labels
        return squared(temperature) * kl(_binary(target / temperature, labels), _binary(student.logits / temperature, labels))


@dataclass(frozen=True)
class NonTargetClass(Knowledge):
    """``nckd``: the teacher's probabilities among the other classes; zero with two classes."""

    needs: ClassVar[Part] = "logits"
    rowwise: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's logits ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """KL among the classes but the true one, times ``tau^2``; ``target [..., C]`` -> ``[...]``; leading axes broadcast."""
        assert student.labels is not None
        temperature, labels = student.temperature, student.labels
        return squared(temperature) * kl(_others(target / temperature, labels), _others(student.logits / temperature, labels))


def _binary(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits of the true class and of all others together, ``[..., C]`` -> ``[..., 2]``; never ``log(1 - p)``, which rounds to -inf."""
    others = _others(logits, labels).logsumexp(-1, keepdim=True)
    return torch.cat([torch.take_along_dim(logits, labels[..., None], -1), others], -1)


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits of the classes but the true one, ``[..., C]`` -> ``[..., C - 1]``."""
    places = torch.arange(logits.shape[-1] - 1, device=logits.device)
    return torch.take_along_dim(logits, places + (places >= labels[..., None]), -1)
