"""The loop in which a policy teaches students. In: an environment, a policy, a seed. Out: nothing; the environment holds the student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kd_env.envs.actions.kind import as_numbers
from kd_env.envs.decisions import concatenate
from kd_env.errors import InputError
from kd_env.policies.episode_view import EpisodeView
from kd_env.policies.faults import faults_of
from kd_env.policies.protocol import Learner
from kd_env.types import Decision, Observation


class EpisodeState(NamedTuple):
    """The variables of the loop between two updates. With the states of the environment and of the policies, the episode can be resumed.

    Attributes:
        observation: the current observation.
        over: whether each student of a population is finished, ``[S]``.
        actions: the last action of each policy of a population, which is repeated for finished students.
    """

    observation: Observation
    over: np.ndarray
    actions: Sequence[Any]


AfterUpdate = Callable[[EpisodeState], None]
"""Callback that is called after each update but the last."""


def run_episode(
    env: Any,
    policy: Any,
    seed: int,
    learning: bool = True,
    resume_from: EpisodeState | None = None,
    after_update: AfterUpdate | None = None,
) -> None:
    """Teach one student, or a student and its peers, from ``seed`` to the end of the budget.

    Args:
        env: a vector environment of this package, ``gymnasium.make_vec``.
        policy: an object with ``act`` and, if it learns, ``update``.
        learning: whether ``update`` is called.
        resume_from: state of an episode to continue, with the student in ``env``. Default: start with a new student.
        after_update: called after each update but the last.
    """
    view = EpisodeView(policy, _teacher_blocks(env))
    observation, over = _begin(env, [policy], seed, learning, resume_from), False
    while not over:
        policy_observation = view.observation(observation)
        with faults_of(policy, "act"):
            action = view.action(policy.act(policy_observation))
        next_observation, reward, terminated, truncated, info = env.step(action)
        if learning and isinstance(policy, Learner):
            transition = view.transition(observation, action, reward, next_observation, terminated, info)
            with faults_of(policy, "update"):
                policy.update(transition)
        observation, over = next_observation, bool(terminated[0] | truncated[0])  # the other slots belong to the student's peers
        if after_update is not None and not over:
            after_update(EpisodeState(observation, np.zeros(1, dtype=np.bool_), ()))


def run_population_episode(
    env: Any,
    policies: Sequence[Any],
    seeds: Sequence[int],
    learning: bool = True,
    resume_from: EpisodeState | None = None,
    after_update: AfterUpdate | None = None,
) -> None:
    """Teach S students at once, each by its own policy, as :func:`run_episode` teaches one.

    Args:
        env: a vector environment of S students. It replaces a student that diverges; the new student is not shown to the policy.
        policies: the policies, one per student.
        seeds: the seeds, one per student.
        learning, resume_from, after_update: see :func:`run_episode`.
    """
    slots = env.num_envs // len(policies)
    slots_of = [slice(student * slots, (student + 1) * slots) for student in range(len(policies))]
    views = [EpisodeView(policy, _teacher_blocks(env)) for policy in policies]
    observation = _begin(env, policies, np.repeat(list(seeds), slots).tolist(), learning, resume_from)
    over = np.zeros(len(policies), dtype=np.bool_) if resume_from is None else resume_from.over.copy()
    actions: list[Any] = [None] * len(policies) if resume_from is None else list(resume_from.actions)
    while not over.all():
        observed = [take_slots(observation, part) for part in slots_of]
        for student in np.flatnonzero(~over).tolist():  # finished students get their last action again
            policy_observation = views[student].observation(observed[student])
            with faults_of(policies[student], "act"):
                actions[student] = views[student].action(policies[student].act(policy_observation))
        decided = isinstance(actions[0], Decision)
        action_of_all = concatenate(actions, slots) if decided else _joined(actions)
        observation, rewards, terminated, truncated, infos = env.step(action_of_all)
        for student in np.flatnonzero(~over).tolist() if learning else ():
            if isinstance(policy := policies[student], Learner):
                outcome = (take_slots(values, slots_of[student]) for values in (rewards, observation, terminated, infos))
                transition = views[student].transition(observed[student], actions[student], *outcome)
                with faults_of(policy, "update"):
                    policy.update(transition)
        over |= (terminated | truncated).reshape(len(policies), slots)[:, 0]
        actions = [action.detach() if isinstance(action, Decision) else action for action in actions]  # a graph serves one update
        if after_update is not None and not over.all():
            after_update(EpisodeState(observation, over, actions))


def _teacher_blocks(env: Any) -> Sequence[str]:
    """Return the blocks of an observation that show the teachers alone, also of a small environment that is not of this package."""
    selection = getattr(getattr(env, "unwrapped", env), "selection", None)
    blocks: Sequence[str] = ("teachers",) if selection is None else selection.observation_set.teacher_blocks
    return blocks


def _begin(env: Any, policies: Sequence[Any], seed: int | list[int], learning: bool, resume_from: EpisodeState | None) -> Observation:
    """Start an episode, or resume one; return the first observation."""
    if resume_from is not None:
        return resume_from.observation
    for policy in policies:
        begin_episode(policy, learning)
    observation: Observation = env.reset(seed=seed)[0]
    return observation


def begin_episode(policy: Any, learning: bool) -> None:
    """Call ``begin_episode`` of a policy, if it has this method."""
    if callable(begin := getattr(policy, "begin_episode", None)):
        with faults_of(policy, "begin_episode"):
            begin(learning)


def _joined(actions: Sequence[Any]) -> np.ndarray:
    arrays = [as_numbers(action, "actions of the policies") for action in actions]
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"actions of the policies: expected equal shapes, got {', '.join(str(array.shape) for array in arrays)}")
    return np.concatenate(arrays)


def take_slots(values: Any, slots: slice) -> Any:
    """Return some slots of an array, or of a dict of arrays at any depth."""
    if isinstance(values, dict):
        return {name: take_slots(value, slots) for name, value in values.items()}
    return values[slots]
