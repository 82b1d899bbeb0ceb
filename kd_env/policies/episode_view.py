"""Remove from observations and transitions the entries that a policy may not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from kd_env.policies.access import ALLOWED, DEFAULT_ACCESS, REWARD, STUDENT, TEACHERS, refuse, require_no_gradient
from kd_env.policies.protocol import Transition, class_name
from kd_env.types import Decision, Observation

REWARD_ENTRIES = ("credit", "knowledge_credit", "credit_fold", "reward_terms")
"""Entries of ``info`` that belong to the reward."""
VALIDATION = ("validation", "_validation")
"""Entries of ``info`` that no policy sees: validation chooses settings and students."""


class EpisodeView:
    """Shows an episode to one policy."""

    def __init__(self, policy: Any, teacher_blocks: Sequence[str]) -> None:
        """Read the access that the policy declares; ``teacher_blocks`` are the blocks of an observation that show the teachers alone."""
        self._policy, self._access = class_name(policy), getattr(policy, "access", DEFAULT_ACCESS)
        self._teacher_blocks = teacher_blocks

    def observation(self, observation: Observation) -> Observation:
        """Return the blocks that the access includes."""
        needs = {name: TEACHERS if name in self._teacher_blocks else STUDENT for name in observation if name != "progress"}
        return self._without(observation, "observation", needs)

    def action(self, action: np.ndarray | Decision) -> np.ndarray | Decision:
        """Return the action, see :func:`~kd_env.policies.access.require_no_gradient`."""
        if isinstance(action, Decision):
            require_no_gradient(self._policy, self._access, action)
        return action

    def transition(
        self,
        observation: Observation,
        action: np.ndarray | Decision,
        reward: np.ndarray,
        next_observation: Observation,
        terminated: np.ndarray,
        info: Mapping[str, Any],
    ) -> Transition:
        """Return the step without its reward where the access includes no rewards, and always without validation."""
        fields = self.observation(observation), action, reward, self.observation(next_observation), terminated, self._info(info)
        return Transition(*fields) if REWARD in ALLOWED[self._access] else TransitionWithoutReward(self._policy, self._access, *fields)

    def _info(self, info: Mapping[str, Any]) -> dict[str, Any]:
        visible = {name: value for name, value in info.items() if name not in VALIDATION}
        if "final_info" in visible:
            visible["final_info"] = self._info(visible["final_info"])
        if "final_obs" in visible:
            last = np.empty_like(visible["final_obs"])
            last[:] = [None if blocks is None else self.observation(blocks) for blocks in visible["final_obs"]]
            visible["final_obs"] = last
        return self._without(visible, "transition.info", dict.fromkeys(REWARD_ENTRIES, REWARD))

    def _without(self, values: dict[str, Any], place: str, needs: Mapping[str, str]) -> dict[str, Any]:
        refused = {name: resource for name, resource in needs.items() if resource not in ALLOWED[self._access]}
        return RestrictedDict(values, self._policy, self._access, place, refused) if refused else values


class RestrictedDict(dict[str, Any]):
    """A dict without some entries; reading one of those raises an error that names it."""

    def __init__(self, values: Mapping[str, Any], policy: str, access: str, place: str, refused: Mapping[str, str]) -> None:
        """Take ``values`` without the entries in ``refused``, which maps their names to what they need."""
        super().__init__({name: value for name, value in values.items() if name.removeprefix("_") not in refused})
        self._policy, self._access, self._place, self._refused = policy, access, place, refused

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry, or ``default`` if there is none; refuse an entry that the access does not include."""
        return self[name] if name in self or name.removeprefix("_") in self._refused else default

    def __missing__(self, name: str) -> NoReturn:
        """Refuse an entry that the access does not include."""
        if (entry := name.removeprefix("_")) in self._refused:  # ``_credit`` is the mask of ``credit``
            raise refuse(self._policy, self._access, f"{self._place}[{name!r}]", self._refused[entry])
        raise KeyError(name)


class TransitionWithoutReward(Transition):
    """A step without its reward; reading that raises an error."""

    def __init__(
        self,
        policy: str,
        access: str,
        observation: Observation,
        action: np.ndarray | Decision,
        reward: np.ndarray,
        next_observation: Observation,
        terminated: np.ndarray,
        info: dict[str, Any],
    ) -> None:
        """Keep all but the reward."""
        self.__dict__.update(observation=observation, action=action, next_observation=next_observation, terminated=terminated, info=info)
        self.__dict__.update(_policy=policy, _access=access)

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse the reward."""
        if name == "reward":
            raise refuse(self._policy, self._access, "transition.reward", REWARD)
        raise AttributeError(f"Transition has no {name!r}")
