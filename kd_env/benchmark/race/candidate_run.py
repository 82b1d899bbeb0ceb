"""Teach the students of one candidate of a race, one rung after the other. In: a candidate and its seeds. Out: its students.

Between two rungs the environment stays in memory, or its state is saved to a file. On CPU both give the same students, bit for bit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from kd_env.bank import KnowledgeBank
from kd_env.benchmark.race.candidates import Candidate, resolve
from kd_env.distillation import Distillation
from kd_env.envs.actions.kind import as_numbers
from kd_env.envs.decisions import concatenate
from kd_env.envs.selection import Selection
from kd_env.envs.selection_snapshot import identity
from kd_env.interrupts import raise_if_interrupted
from kd_env.paths import naming, partial_file
from kd_env.policies.context import PolicyContext
from kd_env.policies.episode import begin_episode, take_slots
from kd_env.policies.episode_view import EpisodeView
from kd_env.policies.faults import faults_of
from kd_env.policies.protocol import Learner
from kd_env.serialization import from_bytes
from kd_env.tasks import Task
from kd_env.teachers import Pool
from kd_env.types import Decision, Observation

STATE, POLICY = "state.safetensors", "policy-{}.agent"


@dataclass(frozen=True)
class RaceSetup:
    """What all candidates of a race have in common.

    Attributes:
        task: the task, without its test split.
        pool: the teachers.
        bank: the outputs of the teachers.
        settings: the settings of the user, completed by :func:`~kd_env.benchmark.race.defaults.race_settings`.
    """

    task: Task
    pool: Pool
    bank: KnowledgeBank
    settings: Mapping[str, Any]


class CandidateRun:
    """S students of one candidate, each with its own seed and policy. Several students are taught as one population.

    Attributes:
        candidate: the candidate.
        seeds: the seeds of the students.
        update: number of updates that the students have had.
        diverged: whether each student has diverged, ``[S]``.
        unsaved_seconds: time of teaching since the students were last saved.
    """

    def __init__(self, setup: RaceSetup, candidate: Candidate, seeds: Sequence[int]) -> None:
        """Start with new students.

        Raises:
            InputError: a setting cannot be used, or the policy does not fit the pool.
        """
        self.candidate, self.seeds, self.update, self.unsaved_seconds = candidate, list(seeds), 0, 0.0
        self._policy_class, settings, options = resolve(candidate, setup.task, setup.settings)
        students = len(self.seeds)
        self._slots = settings.distillation.batch_size if settings.interface.granularity == "instance" else 1
        own_arguments = ("num_students", "batch_size") if settings.interface.granularity == "instance" else ("num_students",)
        env: Any = gym.make_vec(
            self._policy_class.environment,
            num_envs=students * self._slots,
            num_students=students,
            vectorization_mode="vector_entry_point",
            task=setup.task,
            teachers=setup.pool,
            bank=setup.bank.directory,
            **{name: value for name, value in options.items() if name not in own_arguments},
        )
        self._env = env.unwrapped
        self._selection: Selection = self._env.selection
        self._selection.use_label_seeds(self.seeds)
        self._students = [None] if students == 1 else list(range(students))  # ``None``: a policy with one student acts for all slots
        self._policies = [
            self._policy_class.build(self._env, seed, student) for seed, student in zip(self.seeds, self._students, strict=True)
        ]
        self._views = [EpisodeView(policy, self._selection.observation_set.teacher_blocks) for policy in self._policies]
        for policy in self._policies:
            begin_episode(policy, True)
        self._observation: Observation = self._env.reset(seed=np.repeat(self.seeds, self._slots).tolist())[0]
        self.diverged = np.zeros(students, dtype=np.bool_)
        self._actions: list[Any] = [None] * students

    def teach(self, updates: int, report: Callable[[int], None]) -> None:
        """Teach all students that have not diverged until they have had ``updates`` updates; call ``report`` with the number after each."""
        while self.update < updates and not self.diverged.all():
            started = time.monotonic()
            self._step()
            self.update += 1
            self.unsaved_seconds += time.monotonic() - started
            report(self.update)
            raise_if_interrupted()

    def logits(self, split: str) -> np.ndarray:
        """Return the logits of all students on a split, ``[S, N, C]``."""
        run = self._selection.distillation
        logits = run.student.predict(run.data.inputs[split], shared=True)  # [S * N, C]
        return logits.view(len(self.seeds), -1, logits.shape[1]).float().cpu().numpy()

    @property
    def num_parameters(self) -> int:
        """Number of parameters of all students."""
        return sum(parameter.numel() for parameter in self._selection.distillation.student.parameters)

    def student(self, number: int) -> Distillation:
        """Return the distillation of the student with index ``number``."""
        return self._selection.distillation.of_student(number)

    def save(self, folder: Path) -> None:
        """Save the students and their policies in ``folder``, which is emptied first."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, policy in enumerate(self._policies):
            if callable(getattr(policy, "save", None)):
                policy.save(str(folder / POLICY.format(number)))
        partial = partial_file(folder / STATE)
        with naming(folder / STATE):
            partial.write_bytes(self._env.snapshot())
            partial.replace(folder / STATE)
        self.unsaved_seconds = 0.0

    def load(self, folder: Path, diverged: Sequence[bool]) -> None:
        """Continue from what :meth:`save` wrote. Policies that cannot be saved are rules without a state; they stay as they are.

        Args:
            folder: folder of the saved state.
            diverged: whether each student had diverged, ``[S]``.

        Raises:
            InputError: a file has changed since it was written.
        """
        with naming(folder / STATE):
            snapshot = (folder / STATE).read_bytes()
        expected = identity(self._selection.distillation, self._selection.settings)
        from_bytes(snapshot, expected, str(folder / STATE), "delete the folder of the race")
        self._observation = self._env.restore(snapshot)
        for number, student in enumerate(self._students):
            if (file := folder / POLICY.format(number)).exists():
                context = PolicyContext(self._env, self._policy_class.name, self._policy_class.access, student)
                self._policies[number] = self._policy_class.make.load(str(file), context)
                begin_episode(self._policies[number], True)
        self._views = [EpisodeView(policy, self._selection.observation_set.teacher_blocks) for policy in self._policies]
        self.diverged = np.array(diverged, dtype=np.bool_)
        self.update = int(self._selection.distillation.update[~self.diverged].max(initial=0))

    def _step(self) -> None:
        """Teach each student one mini-batch; let the policies of those that have not diverged learn from it."""
        slots_of = [slice(number * self._slots, (number + 1) * self._slots) for number in range(len(self.seeds))]
        taught = np.flatnonzero(~self.diverged).tolist()
        observed = [take_slots(self._observation, slots) for slots in slots_of]
        for number in range(len(self.seeds)):
            if not self.diverged[number] or self._actions[number] is None:  # a student that has diverged gets its last action again
                view = self._views[number]
                with faults_of(self._policies[number], "act"):
                    self._actions[number] = view.action(self._policies[number].act(view.observation(observed[number])))
        observation, rewards, terminated, _, info = self._env.step(self._joined_actions())
        for number in taught:
            if isinstance(policy := self._policies[number], Learner):
                outcome = (take_slots(values, slots_of[number]) for values in (rewards, observation, terminated, info))
                transition = self._views[number].transition(observed[number], self._actions[number], *outcome)
                with faults_of(policy, "update"):
                    policy.update(transition)
        self._observation = observation
        ended = terminated.reshape(len(self.seeds), self._slots)[:, 0]
        self.diverged |= ended & self._selection.distillation.diverged
        self._actions = [action.detach() if isinstance(action, Decision) else action for action in self._actions]

    def _joined_actions(self) -> Any:
        """Return the actions of all students as one action of the environment."""
        if len(self._actions) == 1:
            return self._actions[0]
        if isinstance(self._actions[0], Decision):
            return concatenate(self._actions, self._slots)
        return np.concatenate([as_numbers(action, "actions of the policies") for action in self._actions])
