"""``peer`` and ``peer_ensemble``: the other students of a population as teachers of each. They ask no teacher of the pool.

``peer``, mutual learning (Zhang et al. 2018, arXiv 1706.00384): mean over the other students j of ``tau^2 KL(q_j || q)``.
``peer_ensemble``, after peer-collaborative learning (Wu & Gong 2021, arXiv 2006.04147): ``tau^2 KL(mean_j q_j || q)``.

The outputs of the others are not differentiated, and all students step at once (Zhang et al. let them step in turn, at temperature 1). Of
Wu & Gong only the ensemble of peers as a target is here: theirs is a classifier of its own on the features of branches that share a trunk,
and each branch also follows moving averages of the others.

Students teach each other on the instances that both see: the students of a population that asks peers share one data order. A student that
was reset alone, or whose outputs are no longer finite, teaches nobody; a student without peers has a loss of 0.
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
    """A type whose teachers are the other students of the population; its loss is rowwise, of logits."""

    asks_peers: ClassVar[bool] = True

    @abstractmethod
    def teachers(self, peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits that teach each row and which of them count, ``[rows, P, C]`` and ``[rows, P]``.

        Args:
            peers: logits of the other students, ``[rows, S - 1, C]``.
            teaches: which of them teach the row, ``[rows, S - 1]``.
            temperature: a number, or ``[rows, 1, 1]``.
        """

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the peer's logits ``[..., C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the KL from logits ``target [..., C]`` at temperature 1, ``[...]``."""
        return self.loss_in_context(student, target, LossContext())

    def loss_in_context(self, student: ModelOutput, target: Tensor, context: LossContext) -> Tensor:
        """Return the KL from logits ``target [..., C]``, times ``tau^2``, ``[...]``; leading axes broadcast."""
        return tempered_kl(target, student.logits, context)

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of every example against the other students, ``[rows, K]``: the same for all K teachers.

        Raises:
            InputError: there is only one student.
        """
        num_students = len(batch.update)
        require_peers({type(self).__name__: self}, num_students)
        ids = torch.from_numpy(batch.example_ids).to(student.logits.device)
        peers = _others(batch.student.logits, num_students)  # [rows, S - 1, C]
        teaches = (_others(ids, num_students) == ids[:, None]) & peers.isfinite().all(2)  # [rows, S - 1]
        wide = context.for_all_teachers()
        peers, teaches = self.teachers(torch.where(teaches[:, :, None], peers, 0.0), teaches, wide.temperature)
        losses = self.loss_in_context(for_all_teachers(student), self.target(ModelOutput(peers, peers)), wide)  # [rows, P]
        mean = torch.where(teaches, losses, 0.0).sum(1) / teaches.sum(1).clamp_min(1)
        return mean[:, None].expand(-1, batch.teacher_logits.shape[1])


@dataclass(frozen=True)
class Peer(PeerKnowledge):
    """Mutual learning: the response of each other student of the population."""

    def teachers(self, peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return all other students, P = S - 1."""
        return peers, teaches


@dataclass(frozen=True)
class PeerEnsemble(PeerKnowledge):
    """The response of all other students as one, the mean of their softened probabilities."""

    def teachers(self, peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return the ensemble of the other students, P = 1."""
        return _ensemble(peers, teaches, temperature)[:, None], teaches.any(1, keepdim=True)


def require_peers(kinds: Mapping[str, Knowledge], num_students: int) -> None:
    """Refuse a type that asks peers where there is one student.

    Raises:
        InputError: there is one student, and a type asks the others.
    """
    asking = [name for name, kind in kinds.items() if kind.asks_peers]
    if asking and num_students == 1:
        raise InputError(
            f"knowledge={','.join(kinds)!r}: with num_students=1 there are no other students for {' and '.join(asking)} to ask; "
            f"give num_students=2 or more, or leave {' and '.join(asking)} out"
        )


def _others(values: Tensor, num_students: int) -> Tensor:
    """Return for each row the values of the other students at the same place, ``[rows, ...]`` -> ``[rows, S - 1, ...]``."""
    grouped = values.reshape(num_students, -1, *values.shape[1:])  # [S, B, ...]
    return torch.stack([grouped.roll(-shift, 0) for shift in range(1, num_students)], 2).flatten(0, 1)


def _ensemble(peers: Tensor, teaches: Tensor, temperature: float | Tensor) -> Tensor:
    """Return logits ``[rows, C]`` whose softmax at ``temperature`` is the mean of those of the ``peers [rows, P, C]`` that teach."""
    log_q = (peers / temperature).log_softmax(2)
    without_peers = ~teaches.any(1, keepdim=True)  # their logits are zeros, and their loss is masked
    total = torch.where((teaches | without_peers)[:, :, None], log_q, -math.inf).logsumexp(1)  # [rows, C]
    return total * (temperature.squeeze(1) if isinstance(temperature, Tensor) else temperature)
