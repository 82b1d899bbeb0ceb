"""``sb3:TRPO(...)`` and others: the algorithms of the package sb3-contrib on the instance slots, unchanged.

The package is an optional extra: ``pip install 'kd-env[contrib]'``. The defaults follow those of :mod:`agents.sb3`.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.sb3 import StableBaselines3
from kd_env.errors import InputError
from kd_env.types import Observation


class Contrib(StableBaselines3):
    """An algorithm of sb3-contrib as a policy. Learns while it teaches."""

    @classmethod
    def algorithm(cls) -> type[BaseAlgorithm]:
        """Return the class of sb3-contrib.

        Raises:
            InputError: sb3-contrib is not installed.
        """
        try:
            package = importlib.import_module("sb3_contrib")
        except ImportError as error:
            raise InputError(f"sb3:{cls.__name__} needs the package sb3-contrib ({error}); pip install 'kd-env[contrib]'") from None
        algorithm: type[BaseAlgorithm] = getattr(package, cls.__name__)
        return algorithm


class TRPO(Contrib):
    """On-policy with a trust region; any subset of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "subset"}
    defaults = {"n_steps": 16, "batch_size": 256, "gamma": 0.0}


class QRDQN(Contrib):
    """Off-policy, quantiles of the return; one teacher."""

    env_options = {**StableBaselines3.env_options, "action": "one"}
    defaults = {"buffer_size": 20_000, "learning_starts": 1_000, "gamma": 0.0}


class TQC(Contrib):
    """Off-policy, truncated quantiles of the return; weights of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "weights"}
    defaults = {"buffer_size": 20_000, "learning_starts": 1_000, "gamma": 0.0}


class MaskablePPO(Contrib):
    """PPO with masks of invalid actions. All teachers are valid here, so no mask is used; any subset of the teachers."""

    env_options = {**StableBaselines3.env_options, "action": "subset"}
    defaults = {"n_steps": 16, "batch_size": 256, "gamma": 0.0}

    def learn(self, env: Any, num_updates: int) -> MaskablePPO:
        """Teach ``num_updates`` mini-batches without masks."""
        learn: Any = self.model.learn
        learn(num_updates * env.num_envs, use_masking=False)
        return self


class RecurrentPPO(Contrib):
    """PPO with an LSTM over the instances of a slot; one teacher, since sb3-contrib 2.9 cannot learn subsets with it."""

    env_options = {**StableBaselines3.env_options, "action": "one"}
    defaults = {"n_steps": 16, "batch_size": 256, "gamma": 0.0}
    network = "MultiInputLstmPolicy"
    _state: tuple[np.ndarray, ...] | None = None

    def act(self, observation: Observation) -> np.ndarray:
        """Return deterministic actions; the LSTM remembers earlier calls."""
        slots = len(next(iter(observation.values())))
        starts = np.full(slots, self._state is None)
        action, self._state = self.model.predict(observation, state=self._state, episode_start=starts, deterministic=True)
        return action

    def selection_entropy(self, observation: Observation) -> np.ndarray | None:
        """Return ``None``: the distribution depends on the LSTM's state."""
        return None
