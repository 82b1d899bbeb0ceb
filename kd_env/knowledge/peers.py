"""``peer`` and ``peer_ensemble``: each student learns from the other students of its population, its peers, instead of the pool's teachers.

- ``peer``: mutual learning (Zhang et al. 2018, arXiv 1706.00384), the mean over the other students j of ``tau^2 KL(q_j || q)``.
- ``peer_ensemble``: after peer-collaborative learning (Wu & Gong 2021, arXiv 2006.04147), ``tau^2 KL(mean_j q_j || q)``.

Deviations: all students take their steps at the same time (Zhang et al.: in turn, at temperature 1). The outputs of the peers carry no
gradient. From Wu & Gong, only the ensemble of peers as a target is implemented. Their ensemble is a separate classifier on the features of
branches that share a trunk, and each branch also follows moving averages of the others.

Peers teach each other only on instances that both learn from, so the students of such a population share one data order. A student that was
reset alone, or that has outputs which are not finite, does not teach. A student without peers has a loss of 0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge.context import LossContext
from kd_env.knowledge.knowledge import Knowledge
from kd_env.knowledge.response import tempered_kl
from kd_env.knowledge.rowwise import for_all_teachers
from kd_env.types import Batch, ModelOutput


class PeerKnowledge(Knowledge):
    """Base class of types that learn from the other students of the population."""

    uses_peers: ClassVar[bool] = True

    @abstractmethod
    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of each example against the other students, ``[rows, K]``; all K columns are equal."""


class PeerResponse(PeerKnowledge):
    """Base class of types that compare the logits of students example by example."""

    @abstractmethod
    def teachers(self, peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return P target logits per row, ``[rows, P, C]``, and a mask of the targets that count, ``[rows, P]``.

        Args:
            peers: logits of the other students, ``[rows, S - 1, C]``.
            teaches: mask of the other students that teach the row, ``[rows, S - 1]``.
            temperature: temperature, a number or ``[rows, 1, 1]``.
        """

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the logits of the peer, ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the KL between the logits ``target [..., C]`` and the student at temperature 1, ``[...]``."""
        return self.loss_in_context(student, target, LossContext())

    def loss_in_context(self, student: ModelOutput, target: Tensor, context: LossContext) -> Tensor:
        """Return the KL between the logits ``target [..., C]`` and the student times ``tau^2``, ``[...]``; leading axes broadcast."""
        return tempered_kl(target, student.logits, context)

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of each example against the other students, ``[rows, K]``; all K columns are equal.

        Raises:
            InputError: the population has only one student.
        """
        num_students = len(batch.update)
        require_peers({type(self).__name__: self}, num_students)
        ids = torch.from_numpy(batch.example_ids).to(student.logits.device)
        peers = _others(batch.student.logits, num_students)  # [rows, S - 1, C]
        teaches = (_others(ids, num_students) == ids[:, None]) & peers.isfinite().all(2)  # [rows, S - 1]
        context = context.for_all_teachers()
        peers, teaches = self.teachers(torch.where(teaches[:, :, None], peers, 0.0), teaches, context.temperature)
        losses = self.loss_in_context(for_all_teachers(student), self.target(ModelOutput(peers, peers)), context)  # [rows, P]
        mean = torch.where(teaches, losses, 0.0).sum(1) / teaches.sum(1).clamp_min(1)
        return mean[:, None].expand(-1, batch.teacher_logits.shape[1])


@dataclass(frozen=True)
class Peer(PeerResponse):
    """Match the response of each other student of the population (mutual learning)."""

    def teachers(self, peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of all other students, P = S - 1."""
        return peers, teaches


@dataclass(frozen=True)
class PeerEnsemble(PeerResponse):
    """Match the mean of the softened probabilities of all other students."""

    def teachers(self, peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the ensemble of the other students, P = 1."""
        return _ensemble(peers, teaches, temperature)[:, None], teaches.any(1, keepdim=True)


def require_peers(kinds: Mapping[str, Knowledge], num_students: int) -> None:
    """Check that a population with types that need peers has at least two students.

    Raises:
        InputError: a type needs peers, and there is one student.
    """
    using = [name for name, kind in kinds.items() if kind.uses_peers]
    if using and num_students == 1:
        raise InputError(
            f"knowledge={','.join(kinds)!r}: with num_students=1 there are no other students, which {' and '.join(using)} "
            f"{'need' if len(using) > 1 else 'needs'}; use num_students=2 or more, or leave {' and '.join(using)} out"
        )


def _others(values: Tensor, num_students: int) -> Tensor:
    """Return the values of the other students for the same instance, ``[rows, ...]`` -> ``[rows, S - 1, ...]``."""
    grouped = values.reshape(num_students, -1, *values.shape[1:])  # [S, B, ...]
    return torch.stack([grouped.roll(-shift, 0) for shift in range(1, num_students)], 2).flatten(0, 1)


def _ensemble(peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the ensemble's logits ``[rows, C]``: their softmax is the mean of the softmaxes of the ``peers [rows, P, C]`` that teach."""
    log_q = (peers / temperature).log_softmax(2)
    without_peers = ~teaches.any(1, keepdim=True)  # the logits of these rows are zeros, and their loss is masked
    total = torch.where((teaches | without_peers)[:, :, None], log_q, -math.inf).logsumexp(1)  # [rows, C]
    return total * (temperature.squeeze(1) if isinstance(temperature, Tensor) else temperature)
