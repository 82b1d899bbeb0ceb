"""``sb3:PPO(...)``: Stable-Baselines3's algorithms on the instance slots, unchanged.

Each slot is one of B agents that share a policy network, so ``total_timesteps`` counts slot decisions. Some defaults differ from SB3's,
which would leave the agent hardly any updates within one student: rollouts are short, and there is no discount, since the next instance of
a slot does not depend on the last.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy

from agents.entropy import bernoulli_entropy, normalized_entropy
from kd_env.envs.sb3 import SB3VecEnv
from kd_env.errors import InputError
from kd_env.types import Observation


class StableBaselines3:
    """An SB3 algorithm as a policy. Learns while it teaches. The result is the student that the run trains."""

    access = "reward gradient"
    learns_from = "the reward"
    paper = ""
    env_options: dict[str, Any] = {"granularity": "instance", "observation": "full", "reward": "dev_improvement", "credit": "first_order"}
    defaults: dict[str, Any] = {}
    network = "MultiInputPolicy"

    @classmethod
    def algorithm(cls) -> type[BaseAlgorithm]:
        """Return SB3's class of the same name."""
        algorithm: type[BaseAlgorithm] = getattr(stable_baselines3, cls.__name__)
        return algorithm

    def __init__(self, env: Any, seed: int = 0, **hyperparameters: Any) -> None:  # SB3's, checked against its signature
        """Make the algorithm of this class's name with SB3's ``hyperparameters``."""
        algorithm = self.algorithm()
        known = set(inspect.signature(algorithm).parameters) - {"policy", "env", "seed", "device"}
        for name in hyperparameters:
            if name not in known:
                raise InputError(f"sb3:{algorithm.__name__}: no hyperparameter {name!r}; known: {', '.join(sorted(known))}")
        slots = SB3VecEnv(env)
        arguments = {**self.defaults, **hyperparameters}
        try:
            self.model: BaseAlgorithm = algorithm(self.network, slots, seed=seed, device="cpu", **arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise InputError(f"sb3:{algorithm.__name__}: {error}") from None
        _log_nowhere(self.model)

    def act(self, observation: Observation) -> np.ndarray:
        """Return deterministic actions."""
        return self.model.predict(observation, deterministic=True)[0]

    def selection_entropy(self, observation: Observation) -> np.ndarray | None:
        """Return the entropy of the policy's distribution, in [0, 1], ``[num_envs]``; ``None`` if it is deterministic or continuous."""
        policy = self.model.policy
        if not isinstance(policy, ActorCriticPolicy):
            return None
        with torch.no_grad():
            distribution = policy.get_distribution(policy.obs_to_tensor(observation)[0]).distribution
        if isinstance(distribution, torch.distributions.Bernoulli):
            return bernoulli_entropy(distribution.probs.cpu().numpy())
        return normalized_entropy(distribution.probs.cpu().numpy()) if isinstance(distribution, torch.distributions.Categorical) else None

    def learn(self, env: Any, num_updates: int) -> StableBaselines3:
        """Teach ``num_updates`` mini-batches; ``env`` is the environment that the algorithm was made with."""
        self.model.learn(num_updates * env.num_envs)
        return self

    def save(self, path: str) -> None:
        """Write the algorithm in SB3's format."""
        self.model.save(path)

    @classmethod
    def load(cls, path: str, env: Any) -> StableBaselines3:
        """Read a policy for ``env``; SB3's format contains pickles, so load only files that you trust."""
        agent = cls(env)
        agent.model = type(agent.model).load(path, env=SB3VecEnv(env))
        if hasattr(agent.model, "learning_starts"):
            agent.model.learning_starts = 0  # off-policy: act with what was learned, not at random
        _log_nowhere(agent.model)
        return agent


def _log_nowhere(model: BaseAlgorithm) -> None:
    """Give the algorithm a logger without a folder, unless its hyperparameters ask for a log. SB3's own leaves one in the temp folder."""
    if model.verbose == 0 and model.tensorboard_log is None:
        model.set_logger(Logger(folder=None, output_formats=[]))


class PPO(StableBaselines3):
    """On-policy; any subset of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "subset"}
    defaults = {"n_steps": 16, "batch_size": 256, "gamma": 0.0}


class A2C(StableBaselines3):
    """On-policy; any subset of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "subset"}
    defaults = {"n_steps": 4, "gamma": 0.0}


class DQN(StableBaselines3):
    """Off-policy; one teacher."""

    env_options = {**StableBaselines3.env_options, "action": "one"}
    defaults = {"buffer_size": 20_000, "learning_starts": 1_000, "gamma": 0.0}


class SAC(StableBaselines3):
    """Off-policy; weights of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "weights"}
    defaults = {"buffer_size": 20_000, "learning_starts": 1_000, "gamma": 0.0}


class TD3(StableBaselines3):
    """Off-policy; weights of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "weights"}
    defaults = {"buffer_size": 20_000, "learning_starts": 1_000, "gamma": 0.0}


class DDPG(StableBaselines3):
    """Off-policy; weights of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "weights"}
    defaults = {"buffer_size": 20_000, "learning_starts": 1_000, "gamma": 0.0}
