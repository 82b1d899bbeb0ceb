"""Choose the candidates of a race. In: a task, its number of teachers, the user's settings. Out: policies with their settings.

The first candidates are the student without a teacher and `uniform` with several values of ``kd_weight``. The others take the best of these
values: `uniform` at a higher temperature, and the policies that fit the data. So the settings are searched one after the other, not as a
full grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kd_env.benchmark.trial import default_options
from kd_env.envs.settings import Settings
from kd_env.envs.settings import settings as make_settings
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.policies.access import SEPARATOR, effective_access
from kd_env.policies.registry import PolicyClass
from kd_env.tasks import Task

NO_TEACHER = "no_teacher"
KD_WEIGHTS = (0.5, 1.0)
"""Values of ``kd_weight`` that are compared with `uniform`."""
TEMPERATURE_FACTOR = 2.5
"""Factor of the higher temperature: it is 5 if the default of the task is 2."""
CREDIT_OPTIONS = {"credit_refresh": 4, "reward_examples": 64}
"""Settings of `crossfit_credit`: every fourth update, a new held-out gradient of 64 examples.

With the defaults, a gradient of 256 examples at every update, an update costs several times as much.
"""
EXTRA_COST = {"crossfit_credit": 2.5}
"""Cost of an update with a policy beyond that of an update with `uniform`, relative to the latter; measured on a CPU with two teachers."""
STACKING, STACKING_LABELS = ("stacking", "crossfit_credit"), 2
"""Policies that fit `stacking`, and the number of reward labels that it needs."""
REFUSED = {
    **dict.fromkeys(("action", "granularity", "observation", "num_students"), "each candidate of a race sets its own"),
    "reward": "no candidate of a race learns from it",
    "credit": "crossfit_credit needs its own, and the other candidates of a race use none",
    "block_swap": "the student without a teacher, with which a race compares, would have blocks of a teacher",
}
"""Settings that a race does not take, and why."""
NO_REWARD_LABELS = {"nothing", "teacher outputs", "student outputs", "train labels", "gradient"}
"""Access classes of policies that can be scored on the reward split."""


@dataclass(frozen=True)
class Candidate:
    """A policy with its settings in a race.

    Attributes:
        policy: name of the policy, with options.
        options: settings of the environment that this candidate adds to the user's.
        rank: position in the order of simplicity, 0 for the simplest; it decides between candidates with equal scores.
    """

    policy: str
    options: dict[str, Any] = field(default_factory=dict)
    rank: int = 0

    @property
    def name(self) -> str:
        """Name for the user, such as ``uniform, kd_weight 0.5, temperature 2``."""
        shown = [f"{name} {self.options[name]:g}" for name in ("kd_weight", "temperature") if name in self.options]
        return ", ".join([self.policy, *shown])


def first_candidates(task: Task, settings: Mapping[str, Any]) -> list[Candidate]:
    """Return the student without a teacher and `uniform` with several values of ``kd_weight``.

    A setting that the user names is not varied. With ``kd_weight=1`` there is no student without a teacher, because the loss has no labels.

    Args:
        task: the task.
        settings: the user's settings.
    """
    temperature = settings.get("temperature", task.defaults.temperature)
    weights = KD_WEIGHTS if settings.get("kd_weight") is None else (settings["kd_weight"],)
    candidates = [Candidate("uniform", {"kd_weight": weight, "temperature": temperature}) for weight in weights]
    return _ranked(candidates if settings.get("kd_weight") == 1.0 else [Candidate(NO_TEACHER), *candidates])


def more_candidates(
    task: Task, num_teachers: int, settings: Mapping[str, Any], best_uniform: Candidate, first_rank: int
) -> list[Candidate]:
    """Return `uniform` at a higher temperature and the policies that fit the data, with the ``kd_weight`` of ``best_uniform``.

    Args:
        task: the task.
        num_teachers: number of teachers K.
        settings: the user's settings.
        best_uniform: the best `uniform` so far.
        first_rank: rank of the first of these candidates.
    """
    candidates = []
    if settings.get("temperature") is None:
        temperature = TEMPERATURE_FACTOR * best_uniform.options["temperature"]
        candidates.append(replace(best_uniform, options={**best_uniform.options, "temperature": temperature}))
    num_labels = settings.get("reward_labels") or len(task.reward)
    policies = [policy for policy in _policies(task, num_teachers) if policy not in STACKING or num_labels >= STACKING_LABELS]
    candidates += [replace(best_uniform, policy=policy) for policy in policies]
    credit = {name: value for name, value in CREDIT_OPTIONS.items() if settings.get(name) is None}
    candidates = [
        replace(candidate, options={**candidate.options, **credit}) if candidate.policy == "crossfit_credit" else candidate
        for candidate in candidates
    ]
    return _ranked(candidates, first_rank)


def candidates_and_cost(task: Task, num_teachers: int, settings: Mapping[str, Any]) -> tuple[int, float]:
    """Return the number of candidates of a race, and the sum of their :data:`EXTRA_COST`."""
    first = first_candidates(task, settings)
    candidates = first + more_candidates(task, num_teachers, settings, first[-1], len(first))
    return len(candidates), sum(EXTRA_COST.get(candidate.policy, 0.0) for candidate in candidates)


def resolve(candidate: Candidate, task: Task, settings: Mapping[str, Any]) -> tuple[PolicyClass, Settings, dict[str, Any]]:
    """Return the policy of a candidate, its checked settings, and the keywords of its environment, without task, teachers and bank.

    Raises:
        InputError: a setting of the user cannot be used.
    """
    policy = registry.find(candidate.policy)
    options = {**default_options(policy.environment), **policy.env_options, **settings, **candidate.options}
    for name, reason in REFUSED.items():
        if settings.get(name):
            raise InputError(f"{name}={settings[name]}: {reason}; leave {name} out, or name one --policy")
    if settings.get("kd_weight") == 0.0:
        raise InputError("kd_weight=0: no candidate would learn from the teachers; leave it out, or use --policy no_teacher")
    if "kd_weight" in policy.env_options:
        options["kd_weight"] = policy.env_options["kd_weight"]
    return policy, make_settings(task, **options), options


def scored_on_validation_alone(candidate: Candidate, task: Task, settings: Mapping[str, Any]) -> bool:
    """Return whether a candidate must not be scored on the reward split.

    Its policy uses these labels, or a setting of the user does, such as ``calibrate_teachers`` or ``reward_ce``, or the user limits them
    with ``reward_labels``.
    """
    if settings.get("reward_labels"):
        return True
    policy, resolved, _ = resolve(candidate, task, settings)
    return not set(effective_access(policy.access, resolved).split(SEPARATOR)) <= NO_REWARD_LABELS


def _policies(task: Task, num_teachers: int) -> list[str]:
    """Return the policies that fit the data, the simplest first."""
    if num_teachers < 2:
        return []
    by_group = task.train.groups is not None
    return ["best_single", "router", "stacking", "crossfit_credit"] if by_group else ["camkd_logits", "stacking", "crossfit_credit"]


def _ranked(candidates: list[Candidate], first_rank: int = 0) -> list[Candidate]:
    return [replace(candidate, rank=first_rank + number) for number, candidate in enumerate(candidates)]
