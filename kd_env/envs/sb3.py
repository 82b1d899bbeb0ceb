"""Adapt instance slots to Stable-Baselines3, which does not accept Gymnasium's vector environments."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from kd_env.errors import InputError


class SB3VecEnv(VecEnv):
    """A Stable-Baselines3 ``VecEnv`` around a ``gymnasium.make_vec`` environment with ``autoreset_mode="same_step"``."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Wrap the slots of ``env``.

        Raises:
            InputError: ``env`` has another ``autoreset_mode``.
        """
        if env.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise InputError('SB3VecEnv: make the environment with autoreset_mode="same_step"')
        self.env = env
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions = np.zeros(0)

    def reset(self) -> VecEnvObs:
        """Start a new student, from the seed of :meth:`seed` if there is one."""
        observation, info = self.env.reset(seed=self._seeds[0])
        self.reset_infos = self._split(info)
        self._reset_seeds()
        return observation  # type: ignore[no-any-return]

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Teach one mini-batch."""
        observation, rewards, terminated, truncated, info = self.env.step(self._actions)
        done = terminated | truncated
        final = info.pop("final_obs", None)
        ended = info.pop("final_info", None)
        infos = current = self._split(info)
        if final is not None:
            ends = self._split(ended)
            infos = [ends[slot] if done[slot] else current[slot] for slot in range(self.num_envs)]
            for slot in np.flatnonzero(done):
                infos[slot]["terminal_observation"] = final[slot]
                infos[slot]["TimeLimit.truncated"] = bool(truncated[slot])
                self.reset_infos[slot] = current[slot]
        return observation, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute of the environment behind the slots, once per slot."""
        return [getattr(self.env.unwrapped, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment behind the slots."""
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the environment once and return its result for each slot."""
        result = getattr(self.env.unwrapped, method_name)(*method_args, **method_kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Return false for each slot, since slots cannot have wrappers of single environments."""
        return [False] * len(list(self._get_indices(indices)))

    def _split(self, info: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._slot(info, slot) for slot in range(self.num_envs)]

    def _slot(self, info: dict[str, Any], slot: int) -> dict[str, Any]:
        """Return the ``info`` of one slot, by Gymnasium's masks."""
        names = [name for name in info if not name.startswith("_") and info[f"_{name}"][slot]]
        return {name: self._slot(info[name], slot) if isinstance(info[name], dict) else info[name][slot] for name in names}
