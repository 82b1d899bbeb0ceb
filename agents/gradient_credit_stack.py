"""Policies of :mod:`agents.gradient_credit` for the students of a population, in batched passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from agents.network_stack import NetworkStack, clipped_each, split_observation, split_students
from kd_env.envs.actions import action_of_weights
from kd_env.policies import Transition
from kd_env.types import Observation

MAX_NORM = 1.0
"""Norm to which the gradient of a policy is clipped."""


class LearnsWithPrior(Protocol):
    """A policy that can be stacked."""

    policy: nn.Module
    prior: nn.Module | None
    optimizer: torch.optim.Adam

    def weights(self, logits: Tensor) -> np.ndarray:
        """Return the weights that the student is taught with, for logits ``[..., K]``."""
        ...

    def value(self, logits: Tensor, prior_logits: Tensor | None, credit: Tensor) -> Tensor:
        """Return what the policy maximises, ``[...]``, for ``[..., B, K]`` each."""
        ...


class GradientCreditStack:
    """Policies of a population in batched passes, see :class:`~kd_env.policies.protocol.PolicyStack`."""

    def __init__(self, policies: Sequence[LearnsWithPrior]) -> None:
        """Stack the networks of the policies."""
        self._first, self._size = policies[0], len(policies)
        self._networks = NetworkStack([policy.policy for policy in policies], [policy.optimizer for policy in policies])
        priors = [policy.prior for policy in policies if policy.prior is not None]
        self._priors = NetworkStack(priors) if priors else None

    @torch.no_grad()
    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions."""
        logits = self._networks(split_observation(observation, self._size))  # [S, B, K]
        return action_of_weights(self._first.weights(logits.flatten(0, 1)))

    def update(self, transition: Transition) -> None:
        """Make one update of each policy with the credit of the step."""
        if "credit" not in transition.info:
            return
        observation = split_observation(transition.observation, self._size)
        credit = split_students(transition.info["credit"], self._size).float()  # [S, B, K]
        with torch.no_grad():
            prior_logits = None if self._priors is None else self._priors(observation)
        value = self._first.value(self._networks(observation), prior_logits, credit)
        self._networks.maximise(value, lambda gradients: clipped_each(gradients, MAX_NORM))

    def separate(self) -> None:
        """Let each policy go on alone."""
        for networks in filter(None, (self._networks, self._priors)):
            networks.separate()
