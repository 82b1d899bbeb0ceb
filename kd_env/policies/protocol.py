"""Define what a policy is: ``act``, and for a learner ``update``; or, for a rule, ``decide``.

A class is built as ``P(context, seed, **options)``. It may declare:

- ``access``: what it reads, see :mod:`kd_env.policies.access`; a static method ``access_for(**options)`` where that depends on its options;
- ``env_options``: env keywords that it needs;
- ``environment``: the id that it acts in, by default ``kd_env/TeacherSelection-v0``;
- ``supports_population``: false for one that reads its student's gradients; a static method ``supports_population_for(**options)`` where
  that depends on its options;
- ``stack``: a class whose objects act and learn for all policies of a population in batched passes, see :class:`PolicyStack`;
- ``paper`` and ``learns_from``: for ``kd-env list policies``.

A policy can be stopped and resumed between two updates if it has ``state()`` and ``load_state(state)``, see
:mod:`kd_env.policies.policy_state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from kd_env.policies.batch import PolicyBatch
from kd_env.types import Decision, Observation


@dataclass(frozen=True)
class Transition:
    """One step of an environment, limited to what the learner's access includes. The first axis of arrays is slots.

    Attributes:
        observation: the observation that the policy acted on.
        action: what it returned, actions or a decision.
        reward: the rewards ``[num_envs]``.
        next_observation: the observation it acts on next; meaningless after the last step of an episode.
        terminated: ``[num_envs]``, whether the student's budget is spent or the student has diverged.
        info: see the environment's docstring; ``info["credit"]`` where credit is paid. It never holds validation.
    """

    observation: Observation
    action: np.ndarray | Decision
    reward: np.ndarray
    next_observation: Observation
    terminated: np.ndarray
    info: dict[str, Any]


class Policy(Protocol):
    """Chooses actions.

    Optional: ``selection_entropy(observation) -> [num_envs]``, the entropy of its selection probabilities in [0, 1], for reports;
    ``begin_episode(learning)``, called before each student; ``training_episodes``, the number of students that it trains on before the
    student that is the result. On that one it learns only if ``learns_on_the_last`` is true.
    """

    def act(self, observation: Observation) -> np.ndarray | Decision:
        """Return actions for all slots, in the space ``env.action_space``; or a whole decision about their instances."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A policy that learns from each step."""

    def act(self, observation: Observation) -> np.ndarray | Decision:
        """Return actions for all slots."""
        ...

    def update(self, transition: Transition) -> None:
        """Learn from one step."""
        ...


class NotStackable(Exception):
    """Raised by a stack for policies that it cannot take; they then act and learn one after the other."""


class PolicyStack(Protocol):
    """Policies of one class that act and learn in batched passes, each for one student of a population.

    A class names it as ``stack``, and a subclass does not inherit it. It is built as ``stack(policies)``, where the options of the policies
    differ in seeds alone, and may raise :class:`NotStackable`. It does what the policies do one after the other, up to rounding. After each
    step every policy can be saved, and asked for its ``selection_entropy``. It does not learn itself until ``separate()`` is called.
    """

    def act(self, observation: Observation) -> np.ndarray:
        """Return actions for all slots of all students."""
        ...

    def update(self, transition: Transition) -> None:
        """Learn from one step of all students. It is not called after the first student is finished."""
        ...

    def separate(self) -> None:
        """Let each policy go on alone; called when the first student is finished, or the episode is interrupted."""
        ...


@runtime_checkable
class OwnsLoop(Protocol):
    """A policy that drives the environment itself, such as an algorithm of another library; it is built with the environment."""

    def learn(self, env: Any, num_updates: int) -> object:
        """Drive ``env`` for ``num_updates`` student updates and learn from what it pays."""
        ...


@runtime_checkable
class Rule(Protocol):
    """A policy given by a formula: a function of the mini-batch, and of what its access allows."""

    def decide(self, batch: PolicyBatch) -> Tensor | Decision:
        """Return weights of the teachers ``[rows, K]`` (for knowledge selection: gates ``[S, M]``), or a whole decision.

        The kind of action must be able to set the weights: see ``action`` in ``env_options``.
        """
        ...


def class_name(policy: Any) -> str:
    """Return the name of a policy's class, of a rule that acts as a policy that of the rule, for messages."""
    return type(getattr(policy, "rule", policy)).__name__
