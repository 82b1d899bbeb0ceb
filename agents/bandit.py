"""What the bandits over teachers share: an arm is a teacher, a pull is a mini-batch that it teaches alone, the reward is dev improvement.

In: an environment that takes one teacher per step (``granularity="batch"``, ``action="one"``). Out: the teacher of the mini-batch. Dev
improvement is small, of unknown scale, and shrinks as the student learns, while bandits are written for rewards in [0, 1]:
:class:`RecentRange` maps it there. That is ours, not from any of the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.saving import SavedAgent
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyContext, Transition
from kd_env.types import Observation


class Bandit(SavedAgent, ABC):
    """A policy that pulls one arm per step and learns from the reward of that arm alone. The result is the student that the run trains."""

    access = "reward scalar"
    learns_from = "the reward"
    paper = ""
    env_options: dict[str, Any] = {"granularity": "batch", "action": "one", "observation": "summary"}

    def __init__(self, context: PolicyContext, seed: int, options: dict[str, Any]) -> None:
        """Take the ``options`` of the concrete bandit; ``memory`` among them is the number of rewards that set the scale."""
        if context.num_envs != 1 or not isinstance(context.single_action_space, spaces.Discrete):
            raise InputError(
                f"policy {type(self).__name__}: {context.num_envs} slots of {context.single_action_space}; a bandit teaches one student "
                "with one teacher per mini-batch; give granularity=batch, action=one, num_students=1"
            )
        spec.numbers(type(self).__name__, least=2, whole=True, memory=options["memory"])
        self.seed, self.options = seed, {"seed": seed, **options}
        self.num_arms = int(context.single_action_space.n)
        self.rng = np.random.default_rng(seed)
        self.range = RecentRange(options["memory"])

    @abstractmethod
    def choose(self, observation: Observation) -> int:
        """Return the arm to pull; it may draw from ``rng`` and changes nothing else."""

    @abstractmethod
    def learn_from(self, arm: int, reward: float, observation: Observation) -> None:
        """Learn that ``arm``, pulled on ``observation``, paid ``reward``, in [0, 1]."""

    @abstractmethod
    def learned(self) -> dict[str, np.ndarray]:
        """Return what was learned, by name."""

    @abstractmethod
    def load_learned(self, learned: dict[str, np.ndarray]) -> None:
        """Continue from what :meth:`learned` returned."""

    def act(self, observation: Observation) -> np.ndarray:
        """Return the arm of the one slot, ``[1]``."""
        return np.array([self.choose(observation)])

    def update(self, transition: Transition) -> None:
        """Learn what the arm paid."""
        assert isinstance(transition.action, np.ndarray)
        reward = self.range.scaled(float(transition.reward[0]))
        self.learn_from(int(transition.action[0]), reward, transition.observation)

    def state(self) -> dict[str, Any]:
        """Return what was learned, the recent rewards and the random state."""
        return {"learned": self.learned(), "range": list(self.range.recent), "rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.load_learned(state["learned"])
        self.range.recent.clear()
        self.range.recent.extend(state["range"])
        self.rng.bit_generator.state = state["rng"]


class RecentRange:
    """Maps rewards to [0, 1] by the tenth and ninetieth percentile of the last ``memory`` of them, the new one among them."""

    def __init__(self, memory: int) -> None:
        """Start without any."""
        self.recent: deque[float] = deque(maxlen=memory)

    def scaled(self, reward: float) -> float:
        """Return ``reward`` in [0, 1], clipped; 1/2 while all are equal.

        What is paid when a student diverges is far below the rest, so it becomes 0 and does not move the percentiles.
        """
        self.recent.append(reward)
        low, high = np.quantile(np.array(self.recent), (0.1, 0.9))
        return float(np.clip((reward - low) / (high - low), 0.0, 1.0)) if high > low else 0.5
