"""The mini-batches that an on-policy agent learns from next. In: observations, actions and rewards. Out: advantages and returns.

Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eqs. 11 and 16), for every slot by itself:

    delta_t = r_t + gamma V(s_t+1) - V(s_t),    A_t = delta_t + gamma lambda A_t+1

No value follows the last step of an episode.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SampledActions(NamedTuple):
    """Actions of an agent for the slots of a mini-batch, with what it computed them from."""

    columns: Tensor  # [B, K, F]
    teachers: Tensor  # [B], the teacher that was drawn
    log_probability: Tensor  # [B], of that teacher
    value: Tensor  # [B], V of the state


class RewardedStep(NamedTuple):
    """The actions for a mini-batch and their rewards."""

    actions: SampledActions
    reward: Tensor  # [B]
    terminated: Tensor  # [B], 1 where the episode ended


class Rollout(NamedTuple):
    """The slots of several mini-batches end to end, N in all."""

    columns: Tensor  # [N, K, F]
    teachers: Tensor  # [N]
    log_probability: Tensor  # [N]
    advantage: Tensor  # [N]
    returns: Tensor  # [N]


def rollout(steps: list[RewardedStep], last_value: Tensor, discount: float, gae_lambda: float) -> Rollout:
    """Return the rollout of ``steps``, whose last one is followed by states with ``last_value [B]``."""
    columns, teachers, log_probability, values = (torch.stack(parts) for parts in zip(*(step.actions for step in steps), strict=True))
    rewards, terminated = torch.stack([step.reward for step in steps]), torch.stack([step.terminated for step in steps])
    advantage = gae(rewards, values, terminated, last_value, discount, gae_lambda)
    flat = (part.flatten(0, 1) for part in (columns, teachers, log_probability, advantage, advantage + values))
    return Rollout(*flat)


def gae(rewards: Tensor, values: Tensor, terminated: Tensor, last_value: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Return the advantages of T steps of B slots, ``[T, B]``; ``terminated`` is 1 where the episode ended."""
    advantages, advantage, next_value = torch.zeros_like(rewards), torch.zeros_like(last_value), last_value
    for step in reversed(range(len(rewards))):
        not_terminated = 1.0 - terminated[step]
        error = rewards[step] + discount * not_terminated * next_value - values[step]
        advantage = error + discount * gae_lambda * not_terminated * advantage
        advantages[step], next_value = advantage, values[step]
    return advantages
