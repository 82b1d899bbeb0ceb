"""Logistic policies of :mod:`agents.reinforce`: one per teacher, which selects it or not. In: observations. Out: log-odds of selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agents.moments import Standardised
from kd_env.envs.observations import split_teachers


class LogisticPolicies(nn.Module):
    """K independent logistic policies."""

    def __init__(self, num_teachers: int, num_columns: int, initial_log_odds: float = 0.0) -> None:
        """Start with the same log-odds of selection for every teacher and instance."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_teachers, num_columns))  # A
        self.bias = nn.Parameter(torch.full((num_teachers,), float(initial_log_odds)))
        self.standardise = Standardised(num_columns)

    def forward(self, observation: Mapping[str, Any]) -> Tensor:
        """Return the logits of selection, blocks ``[B, F]`` of the ``full`` observation -> ``[B, K]``; blocks are arrays or tensors."""
        logits: Tensor = (self.standardise(self.state(observation)) * self.weight).sum(2) + self.bias
        return logits

    def adapt(self, observation: Mapping[str, Any]) -> None:
        """Add a mini-batch to the moments that standardise the state; R(x) changes as the student learns."""
        self.standardise.adapt(self.state(observation))

    def state(self, observation: Mapping[str, Any]) -> Tensor:
        """Return the state of each teacher, ``[..., B, K, F]``, for blocks ``[..., B, F]``."""
        teachers = torch.as_tensor(split_teachers(observation, len(self.bias)))  # [..., B, K, F']
        instance = torch.as_tensor(observation["instance"])[..., None, :].expand(*teachers.shape[:-1], -1)
        return torch.cat([instance, teachers], -1)


def objective(logits: Tensor, action: Tensor, returns: Tensor) -> Tensor:
    """Return ``sum_k r log pi(a_k)``, a mean over instances, ``[...]``: logits and action ``[..., B, K]``, returns ``[..., B]``."""
    log_policy = -nn.functional.binary_cross_entropy_with_logits(logits, action.float(), reduction="none")
    return (returns[..., None] * log_policy).sum(-1).mean(-1)
