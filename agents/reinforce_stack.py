"""Policies of :mod:`agents.reinforce` for the students of a population, in batched passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from agents.logistic_policies import LogisticPolicies, objective
from agents.moments import adapt_moments
from agents.network_stack import NetworkStack, split_observation, split_students
from kd_env.policies import Transition
from kd_env.types import Observation

StoredStep = tuple[Observation, np.ndarray, np.ndarray]
"""A mini-batch that was decided about: observation, action and reward."""


class SelectsTeachers(Protocol):
    """A policy that can be stacked."""

    policy: LogisticPolicies
    optimizer: torch.optim.Adam
    generator: torch.Generator
    learning: bool
    updates: int
    student_warmup: int
    window: int
    stored: list[StoredStep]

    def store(self, observation: Observation, action: np.ndarray, reward: np.ndarray) -> None:
        """Count a step, and store it unless the student is being warmed up."""
        ...

    def returns(self, reward: np.ndarray) -> Tensor:
        """Return the rewards ``[B]``, standardised if there is a baseline."""
        ...


class ReinforceStack:
    """Several policies, see :class:`~kd_env.policies.protocol.PolicyStack`. Each keeps its own random state, baseline and stored steps."""

    def __init__(self, policies: Sequence[SelectsTeachers]) -> None:
        """Stack the networks of the policies."""
        self._policies, self._first, self._size = policies, policies[0], len(policies)
        self._networks = NetworkStack([policy.policy for policy in policies], [policy.optimizer for policy in policies])

    @torch.no_grad()
    def act(self, observation: Observation) -> np.ndarray:
        """Return a sampled subset for every slot; all teachers while the students are warmed up."""
        blocks, first = split_observation(observation, self._size), self._first
        if first.learning:
            seen, mean, variance = (self._networks.buffers[f"standardise.{name}"] for name in ("seen", "mean", "variance"))
            adapt_moments(seen, mean, variance, first.policy.state(blocks).flatten(1, 2))
            if first.updates < first.student_warmup:
                return np.ones((len(observation["progress"]), len(first.policy.bias)), dtype=np.int8)
        probabilities = self._networks(blocks).sigmoid()  # [S, B, K]
        sampled = [torch.bernoulli(each, generator=policy.generator) for each, policy in zip(probabilities, self._policies, strict=True)]
        selected: np.ndarray = torch.cat(sampled).numpy().astype(np.int8)
        return selected

    def update(self, transition: Transition) -> None:
        """Store the step, and update the policies after ``window`` steps."""
        assert isinstance(transition.action, np.ndarray)
        size, num_slots = self._size, len(transition.reward) // self._size
        for policy, start in zip(self._policies, range(0, len(transition.reward), num_slots), strict=True):
            slots = slice(start, start + num_slots)
            observation = {name: block[slots] for name, block in transition.observation.items()}
            policy.store(observation, transition.action[slots], transition.reward[slots])
        if len(self._first.stored) < self._first.window:
            return
        values = []
        for steps in zip(*(policy.stored for policy in self._policies), strict=True):  # one step of each policy
            observation = {name: np.concatenate([observation[name] for observation, _, _ in steps]) for name in steps[0][0]}
            action = split_students(np.concatenate([action for _, action, _ in steps]), size)
            returns = torch.stack([policy.returns(reward) for policy, (_, _, reward) in zip(self._policies, steps, strict=True)])
            values.append(objective(self._networks(split_observation(observation, size)), action, returns))
        self._networks.maximise(torch.stack(values).sum(0))
        for policy in self._policies:
            policy.stored.clear()

    def separate(self) -> None:
        """Let each policy go on alone."""
        self._networks.separate()
