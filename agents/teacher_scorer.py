"""An actor and a critic that work with any number of teachers K and of classes C.

In: the ``summary`` observation, blocks ``[B, F]``. Out: a logit per teacher ``[B, K]``, and a value ``[B]``. One network scores every
teacher, so a permutation of the teachers permutes the logits. The value is the mean of another network's outputs over the teachers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from agents.moments import Standardised
from kd_env.envs.observations import split_teachers
from kd_env.types import Observation

MIN_PROBABILITY = 1e-6
"""Before log-odds, probabilities are clamped to [MIN_PROBABILITY, 1 - MIN_PROBABILITY]; before logarithms, entropies to at least that."""

OF_STUDENT = slice(3, 5)
"""The columns of a teacher that compare it with the student: KL and agreement."""


def teacher_columns(observation: Observation, num_teachers: int, read_student: bool = True) -> Tensor:
    """Return what the networks read of each teacher, ``[B, K, F]``.

    They are the teacher's columns of ``summary``, the mean and the largest of the same columns over the other teachers (0 if there are
    none), and the columns of the instance, the student and the progress. Probabilities are read as log-odds, entropies as logarithms.
    Without ``read_student`` the columns that the student or the progress decide are 0.
    """
    own = _unbounded(torch.from_numpy(split_teachers(observation, num_teachers)))  # [B, K, 6, with labels 8]
    if not read_student:
        own[..., OF_STUDENT] = 0.0
    if num_teachers > 1:
        mean_of_others = (own.sum(1, keepdim=True) - own) / (num_teachers - 1)
        top = own.topk(2, 1)
        is_top = torch.zeros_like(own).scatter(1, top.indices[:, :1], 1.0).bool()
        largest_of_others = torch.where(is_top, top.values[:, 1:], top.values[:, :1])
    else:
        mean_of_others = largest_of_others = torch.zeros_like(own)
    mixture, student, progress = (torch.from_numpy(observation[name]) for name in ("instance", "student", "progress"))
    of_student = torch.cat([_unbounded(student), progress], 1)
    shared = torch.cat([mixture[:, :1], _unbounded(mixture[:, 1:]), of_student if read_student else torch.zeros_like(of_student)], 1)
    return torch.cat([own, mean_of_others, largest_of_others, shared[:, None].expand(-1, num_teachers, -1)], 2)


def num_columns(observed: Mapping[str, int], num_teachers: int) -> int:
    """Return F, the number of columns of a teacher, from the sizes of the blocks of an observation."""
    return 3 * observed["teachers"] // num_teachers + observed["instance"] + observed["student"] + observed["progress"]


class ActorCritic(nn.Module):
    """Two networks with two hidden layers of tanh units. All logits and values are 0 at first."""

    def __init__(self, num_columns: int, hidden: int) -> None:
        """Make the networks for ``num_columns`` columns, see :func:`teacher_columns`."""
        super().__init__()
        self.standardise = Standardised(num_columns)
        self.actor, self.critic = _network(num_columns, hidden), _network(num_columns, hidden)

    def forward(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``[..., K]`` and values ``[...]`` of columns ``[..., K, F]``.

        The last column, the progress in [0, 1], is the same in a whole mini-batch, so it has no deviation and stays as it is.
        """
        standard = torch.cat([self.standardise(columns)[..., :-1].clamp(-10.0, 10.0), columns[..., -1:]], -1)
        return self.actor(standard).squeeze(-1), self.critic(standard).squeeze(-1).mean(-1)


def _unbounded(confidence: Tensor) -> Tensor:
    """Return columns with the first, a probability, as log-odds and the second, an entropy, as its logarithm."""
    log_odds = confidence[..., :1].clamp(MIN_PROBABILITY, 1.0 - MIN_PROBABILITY).logit()
    return torch.cat([log_odds, confidence[..., 1:2].clamp_min(MIN_PROBABILITY).log(), confidence[..., 2:]], -1)


def _network(num_columns: int, hidden: int) -> nn.Sequential:
    layers = [nn.Linear(num_columns, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)]
    for layer, gain in zip(layers, (math.sqrt(2.0), math.sqrt(2.0), 0.0), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
