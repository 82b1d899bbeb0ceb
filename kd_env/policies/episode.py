"""Teach students with policies. In: an environment, policies, seeds. Out: nothing; the environment holds the students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kd_env.envs.actions.kind import as_numbers
from kd_env.envs.decisions import concatenate
from kd_env.errors import InputError
from kd_env.policies.episode_view import EpisodeView
from kd_env.policies.faults import faults_of
from kd_env.policies.protocol import Learner, NotStackable, PolicyStack
from kd_env.types import Decision, Observation


class EpisodeState(NamedTuple):
    """The variables of the loop between two updates. With the states of the environment and of the policies, the episode can be resumed.

    Attributes:
        observation: the current observation.
        over: whether each student of a population is finished, ``[S]``.
        actions: the last action of each policy of a population, or ``None`` before the first; it is repeated for finished students.
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
        seed: seed of the student.
        learning: whether ``update`` is called.
        resume_from: state of an episode to continue, with the student in ``env``. Default: start with a new student.
        after_update: called after each update but the last.

    Raises:
        InputError: the policy raises an error, or ``env`` cannot use its action.
    """
    view = EpisodeView(policy, _teacher_blocks(env))
    observation = start_episode(env, [policy], [seed], learning).observation if resume_from is None else resume_from.observation
    over = False
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
    state = start_episode(env, policies, seeds, learning) if resume_from is None else resume_from
    episode = PopulationEpisode(env, policies, state, learning)
    try:
        while not episode.state.over.all():
            episode.step()
            if after_update is not None and not episode.state.over.all():
                after_update(episode.state)
    finally:
        episode.separate()


class _Part(NamedTuple):
    """Some students, and the policy or stack that acts for them."""

    policy: Any
    view: EpisodeView
    students: slice
    slots: slice


class PopulationEpisode:
    """S students in one environment, each taught by its own policy.

    Attributes:
        state: the variables of the loop.
    """

    def __init__(self, env: Any, policies: Sequence[Any], state: EpisodeState, learning: bool = True) -> None:
        """Start at ``state``, which :func:`start_episode` returns for a new episode."""
        self._env, self._learning, self.state = env, learning, state
        self._policies, self._slots = policies, env.num_envs // len(policies)
        self._stack = None if state.over.any() else stack_of(policies)
        self._parts = self._parts_of(policies if self._stack is None else [self._stack])

    def step(self) -> None:
        """Teach each student one mini-batch, and let the policies of unfinished students learn from it."""
        before, over, actions = self.state.observation, self.state.over, list(self.state.actions)
        for policy, view, students, slots in self._parts:
            if not over[students].all() or actions[students.start] is None:
                observation = view.observation(take_slots(before, slots))
                with faults_of(policy, "act"):
                    action = view.action(policy.act(observation))
                actions[students] = [action] if policy is not self._stack else self._of_students(action)
        decided = isinstance(actions[0], Decision)
        action_of_all = concatenate(actions, self._slots) if decided else _joined(actions)
        observation, rewards, terminated, truncated, infos = self._env.step(action_of_all)
        for policy, view, students, slots in self._parts if self._learning else ():
            if isinstance(policy, Learner) and not over[students].all():
                action = action_of_all if policy is self._stack else actions[students.start]
                outcome = (take_slots(values, slots) for values in (rewards, observation, terminated, infos))
                transition = view.transition(take_slots(before, slots), action, *outcome)
                with faults_of(policy, "update"):
                    policy.update(transition)
        over = over | (terminated | truncated).reshape(len(self._policies), self._slots)[:, 0]
        actions = [action.detach() if isinstance(action, Decision) else action for action in actions]  # a graph serves one update
        self.state = EpisodeState(observation, over, actions)
        if over.any():
            self.separate()

    def separate(self) -> None:
        """Let the policies act and learn one after the other from now on."""
        if self._stack is not None:
            self._stack.separate()
            self._stack, self._parts = None, self._parts_of(self._policies)

    def _of_students(self, action: np.ndarray | Decision) -> list[np.ndarray]:
        """Return the actions of a stack by student."""
        numbers = as_numbers(action, "actions of a stack")
        if len(numbers) != self._env.num_envs:
            name = type(self._stack).__name__
            raise InputError(f"stack {name}: act() returned {len(numbers)} actions; return one per slot, {self._env.num_envs}")
        return np.split(numbers, len(self._policies))

    def _parts_of(self, acting: Sequence[Any]) -> list[_Part]:
        share, blocks = len(self._policies) // len(acting), _teacher_blocks(self._env)
        students = [slice(number * share, (number + 1) * share) for number in range(len(acting))]
        return [
            _Part(policy, EpisodeView(self._policies[part.start], blocks), part, slice(part.start * self._slots, part.stop * self._slots))
            for policy, part in zip(acting, students, strict=True)
        ]


def stack_of(policies: Sequence[Any]) -> PolicyStack | None:
    """Return the policies in batched passes, if their class itself offers that, and their options differ in seeds alone."""
    policy_class = type(policies[0])
    if len(policies) == 1 or "stack" not in vars(policy_class) or any(type(policy) is not policy_class for policy in policies):
        return None
    options = [{**policy.options, "seed": None} for policy in policies]
    if any(of_policy != options[0] for of_policy in options):
        return None
    with faults_of(policies[0], "stack"):
        try:
            stack: PolicyStack | None = policy_class.stack(policies)
        except NotStackable:
            stack = None
    return stack


def start_episode(env: Any, policies: Sequence[Any], seeds: Sequence[int], learning: bool = True) -> EpisodeState:
    """Start an episode with new students, one per policy; return the state before the first update."""
    for policy in policies:
        begin_episode(policy, learning)
    slots = env.num_envs // len(policies)
    observation = env.reset(seed=np.repeat(list(seeds), slots).tolist() if len(policies) > 1 else seeds[0])[0]
    return EpisodeState(observation, np.zeros(len(policies), dtype=np.bool_), [None] * len(policies))


def _teacher_blocks(env: Any) -> Sequence[str]:
    """Return the blocks of an observation that show the teachers alone, also of a small environment that is not of this package."""
    selection = getattr(getattr(env, "unwrapped", env), "selection", None)
    blocks: Sequence[str] = ("teachers",) if selection is None else selection.observation_set.teacher_blocks
    return blocks


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
