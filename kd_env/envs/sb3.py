"""Adapt instance slots to Stable-Baselines3, which does not accept Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from kd_env.errors import InputError


class SB3VecEnv(VecEnv):
    """A Stable-Baselines3 ``VecEnv`` around a ``gymnasium.make_vec`` environment with ``autoreset_mode="same_step"``.

    Vector wrappers may stand around the environment. Attributes and methods are looked up in subclasses of this adapter first, then from
    the outermost wrapper inwards. All slots share one environment. If an attribute or result has one entry per slot, each slot gets its
    own; otherwise all get the same.
    """

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
        """Start a new student, from the seed of :meth:`seed` and with the options of :meth:`set_options` if there are any.

        Raises:
            InputError: the slots have different options.
        """
        options = self._options[0]
        if any(other != options for other in self._options):
            raise InputError("SB3VecEnv: set_options gave the slots different options; they share one student, give all of them the same")
        observation, info = self.env.reset(seed=self._seeds[0], options=options or None)
        self.reset_infos = self._split(info)
        self._reset_seeds()
        self._reset_options()
        return observation  # type: ignore[no-any-return]

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Teach one mini-batch."""
        observation, rewards, terminated, truncated, info = self.env.step(self._actions)
        done = terminated | truncated
        final = info.pop("final_obs", None)
        final_info = info.pop("final_info", None)
        infos = current = self._split(info)
        if final is not None:
            final_infos = self._split(final_info)
            added = [name for name in info if not name.startswith("_") and name not in final_info]  # by wrappers, such as episode
            infos = list(current)
            for slot in np.flatnonzero(done):
                infos[slot] = {**_only(current[slot], added), **final_infos[slot]}
                infos[slot]["terminal_observation"] = final[slot]
                infos[slot]["TimeLimit.truncated"] = bool(truncated[slot])
                self.reset_infos[slot] = {name: value for name, value in current[slot].items() if name not in added}
        return observation, rewards.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute of the environment or of a wrapper around it, once per slot.

        An array with an entry for each slot gives each slot its own; anything else is the same for all slots.

        Raises:
            AttributeError: none of them has it.
        """
        return self._by_slot(getattr(self._owner(attr_name), attr_name), (np.ndarray,), indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute where it is, or of the environment behind the slots if nothing has it yet.

        Raises:
            InputError: ``indices`` names some of the slots only, which share the attribute.
        """
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise InputError(f"SB3VecEnv: set_attr({attr_name!r}, indices={indices!r}): the slots share one environment; leave out indices")
        try:
            owner = self._owner(attr_name)
        except AttributeError:
            owner = self.env.unwrapped
        setattr(owner, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the environment or of a wrapper once, and return one result per slot.

        An array, a list or a tuple with an entry for each slot, such as action masks, gives each slot its own; anything else is the result
        of all slots.

        Raises:
            AttributeError: there is no such method.
        """
        result = getattr(self._owner(method_name), method_name)(*method_args, **method_kwargs)
        return self._by_slot(result, (np.ndarray, list, tuple), indices)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture for each slot: that of its student; ``None`` without ``render_mode="rgb_array"``."""
        pictures: Any = self.env.render() if self.render_mode == "rgb_array" else None
        return list(pictures or [None] * self.num_envs)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Return whether a vector wrapper of that class is around the environment, once per slot."""
        return [any(isinstance(layer, wrapper_class) for layer in self._layers())] * len(list(self._get_indices(indices)))

    def _layers(self) -> list[VectorEnv[Any, Any, Any]]:
        """Return the wrappers, from the outermost inwards, and the environment."""
        layers = [self.env]
        while isinstance(layers[-1], VectorWrapper):
            layers.append(layers[-1].env)
        return layers

    def _owner(self, name: str) -> Any:
        """Return the outermost of this adapter's subclass, wrappers and environment that has the attribute."""
        subclasses = type(self).__mro__[: type(self).__mro__.index(SB3VecEnv)]
        if any(name in vars(subclass) for subclass in subclasses):
            return self
        for layer in self._layers():
            if name in vars(layer) or hasattr(type(layer), name):
                return layer
        if name in vars(self):  # set by a subclass
            return self
        raise AttributeError(f"{type(self.env.unwrapped).__name__} and its wrappers have no attribute {name!r}")

    def _by_slot(self, value: Any, types: tuple[type, ...], indices: VecEnvIndices) -> list[Any]:
        """Return the value of each of the slots ``indices``: its own if ``value`` is of these types and has an entry for each slot."""
        slots = list(self._get_indices(indices))
        divided = isinstance(value, types) and getattr(value, "ndim", 1) > 0
        entries: Any = value
        if divided and len(entries) == self.num_envs:
            return [entries[slot] for slot in slots]
        return [value] * len(slots)

    def _split(self, info: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._slot(info, slot) for slot in range(self.num_envs)]

    def _slot(self, info: dict[str, Any], slot: int) -> dict[str, Any]:
        """Return the ``info`` of one slot, by Gymnasium's masks; what has no mask is there for all slots."""
        names = [name for name in info if not name.startswith("_") and (f"_{name}" not in info or info[f"_{name}"][slot])]
        return {name: self._slot(info[name], slot) if isinstance(info[name], dict) else info[name][slot] for name in names}


def _only(info: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: info[name] for name in names if name in info}
