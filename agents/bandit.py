"""What the bandits over teachers share: an arm is a teacher, a pull is a mini-batch it teaches alone, the reward is dev improvement.

In: an environment that takes one teacher a step (``granularity="batch"``, ``action="one"``). Out: the teacher to pull, and a student. Dev
improvement is small, of unknown scale, and shrinks as the student learns, while bandits are written for rewards in [0, 1]:
:class:`RecentRange` puts it there. That is ours, not of any of the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from agents import saving
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyContext, Transition
from kd_env.types import Observation


class Bandit(ABC):
    """A policy that pulls one arm a step and is told what that arm alone paid; the student of the run is the product."""

    access = "reward scalar"
    learns_from = "the reward"
    paper = ""
    env_options: dict[str, Any] = {"granularity": "batch", "action": "one", "observation": "summary"}

    def __init__(self, context: PolicyContext, seed: int, options: dict[str, Any]) -> None:
        """Take ``options`` to be saved with the policy; ``memory`` of them is the number of rewards that set the scale."""
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
        """The arm to pull; it may draw from ``rng`` and changes nothing else."""

    @abstractmethod
    def credit(self, arm: int, reward: float, observation: Observation) -> None:
        """Learn that ``arm``, pulled on ``observation``, paid ``reward``, in [0, 1]."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """What was learned, by name."""

    @abstractmethod
    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`state` gave."""

    def act(self, observation: Observation) -> np.ndarray:
        """Return the arm of the one slot, ``[1]``."""
        return np.array([self.choose(observation)])

    def update(self, transition: Transition) -> None:
        """Learn what the arm paid."""
        assert isinstance(transition.action, np.ndarray)
        reward = self.range.scaled(float(transition.reward[0]))
        self.credit(int(transition.action[0]), reward, transition.observation)

    def save(self, path: str) -> None:
        """Write what was learned, and the options (safetensors)."""
        kept = {"range": np.array(self.range.recent), **self.state()}
        saving.write(path, {name: torch.from_numpy(array) for name, array in kept.items()}, self.options)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Bandit:
        """Read a policy; its draws begin anew from its seed."""
        tensors, options = saving.read(path)
        agent, state = cls(context, **options), {name: tensor.numpy() for name, tensor in tensors.items()}
        agent.range.recent.extend(state.pop("range").tolist())
        agent.load_state(state)
        return agent


class RecentRange:
    """Rewards put into [0, 1] by the tenth and ninetieth percentile of the last ``memory`` of them, the new one among them."""

    def __init__(self, memory: int) -> None:
        """Start without any."""
        self.recent: deque[float] = deque(maxlen=memory)

    def scaled(self, reward: float) -> float:
        """``reward`` in [0, 1], clipped; 1/2 while all are equal. What a student that diverged is paid is worst and moves no percentile."""
        self.recent.append(reward)
        low, high = np.quantile(np.array(self.recent), (0.1, 0.9))
        return float(np.clip((reward - low) / (high - low), 0.0, 1.0)) if high > low else 0.5
