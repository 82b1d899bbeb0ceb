"""``peer`` and ``peer_ensemble``: the other students of a population as teachers of each. They ask no teacher of the pool.

``peer``, mutual learning (Zhang et al. 2018, arXiv 1706.00384): mean over the other students j of ``tau^2 KL(q_j || q)``.
``peer_ensemble``, after peer-collaborative learning (Wu & Gong 2021, arXiv 2006.04147): ``tau^2 KL(mean_j q_j || q)``.

What the others say is not differentiated, and all students step at once (Zhang et al. let them step in turn, at temperature 1). Of Wu &
Gong only the ensemble of peers as a target is here: theirs is a classifier of its own on the features of branches that share a trunk, and
each branch also follows moving averages of the others.

Students teach each other on the instances that both see: the students of a population that asks peers have one data order. A student that
began anew alone, or whose outputs are no longer finite, teaches nobody; who has no peers left has a loss of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge.knowledge import Knowledge, Peers
from kd_env.knowledge.response import Response
from kd_env.types import Batch, ModelOutput


@dataclass(frozen=True)
class Peer(Response):
    """Mutual learning: the response of each other student of the population."""

    of_peers: ClassVar[Peers] = "each"


@dataclass(frozen=True)
class PeerEnsemble(Response):
    """The response of all other students as one, the mean of their softened probabilities."""

    of_peers: ClassVar[Peers] = "mean"


def require_peers(kinds: Mapping[str, Knowledge], num_students: int) -> None:
    """Refuse a type that asks peers where there are none.

    Raises:
        InputError: one student, and a type that asks the others.
    """
    asking = [name for name, kind in kinds.items() if kind.of_peers]
    if asking and num_students == 1:
        raise InputError(
            f"knowledge={','.join(kinds)!r}: with num_students=1 there are no other students for {' and '.join(asking)} to ask; "
            f"give num_students=2 or more, or leave {' and '.join(asking)} out"
        )


def losses_of_peers(kind: Knowledge, student: ModelOutput, features: Batch, num_students: int) -> Tensor:
    """Loss of every example of ``features`` against the other students ``[rows]``; ``student`` is what the students say of them."""
    require_peers({type(kind).__name__: kind}, num_students)
    ids = torch.from_numpy(features.example_ids).to(student.logits.device)
    peers = _others(features.student.logits, num_students)  # [rows, S - 1, C]
    shared = (_others(ids, num_students) == ids[:, None]) & peers.isfinite().all(2)  # [rows, S - 1]
    peers = torch.where(shared[:, :, None], peers, 0.0)
    temperature = student.temperature[:, None] if isinstance(student.temperature, Tensor) else student.temperature
    if kind.of_peers == "mean":
        peers, shared = _ensemble(peers, shared, temperature)[:, None], shared.any(1, keepdim=True)
    labels = None if student.labels is None else student.labels[:, None]
    said = ModelOutput(student.logits[:, None], student.features[:, None], labels=labels, temperature=temperature)
    every = kind.loss(said, kind.target(ModelOutput(peers, peers)))  # [rows, S - 1 or 1]
    return torch.where(shared, every, 0.0).sum(1) / shared.sum(1).clamp_min(1)


def _others(values: Tensor, num_students: int) -> Tensor:
    """``[rows, ...]`` -> ``[rows, S - 1, ...]``: in the place of each row what stands there of the other students."""
    grouped = values.reshape(num_students, -1, *values.shape[1:])  # [S, B, ...]
    return torch.stack([grouped.roll(-shift, 0) for shift in range(1, num_students)], 2).flatten(0, 1)


def _ensemble(peers: Tensor, shared: Tensor, temperature: float | Tensor) -> Tensor:
    """Logits ``[rows, C]`` whose softmax at ``temperature`` is the mean of those of ``peers [rows, P, C]`` that are ``shared``."""
    log_q = (peers / temperature).log_softmax(2)
    alone = ~shared.any(1, keepdim=True)  # zeros then, which count for nothing
    total = torch.where((shared | alone)[:, :, None], log_q, -math.inf).logsumexp(1)  # [rows, C]
    return total * (temperature.squeeze(1) if isinstance(temperature, Tensor) else temperature)
