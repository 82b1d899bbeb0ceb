"""Teach the students of one candidate of a race, one rung after the other. In: a candidate and its seeds. Out: its students.

Between two rungs the environment and the policies stay in memory, or their state is saved to files. On CPU both give the same students,
bit for bit; but a policy whose state cannot be saved starts again (:mod:`kd_env.policies.policy_state`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kd_env.bank import KnowledgeBank
from kd_env.benchmark.race.candidates import Candidate, resolve
from kd_env.benchmark.run_trial import make_slots
from kd_env.distillation import Distillation
from kd_env.envs.selection import Selection
from kd_env.envs.selection_snapshot import identity
from kd_env.errors import InputError
from kd_env.interrupts import raise_if_interrupted
from kd_env.paths import naming, write_bytes
from kd_env.policies.context import PolicyContext
from kd_env.policies.episode import EpisodeState, PopulationEpisode, start_episode
from kd_env.policies.policy_state import has_state, state_of, with_state
from kd_env.serialization import from_bytes, pack, to_bytes, unpack
from kd_env.tasks import Task
from kd_env.teachers import Pool

STUDENTS, POLICIES = "students.safetensors", "policies.safetensors"
FIX = "delete the folder of the race"


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
        keywords = {**options, "task": setup.task, "teachers": setup.pool, "bank": setup.bank.directory}
        self._env = make_slots(self._policy_class.environment, settings, len(self.seeds), keywords)
        self._selection: Selection = self._env.selection
        self._selection.use_label_seeds(self.seeds)
        self._students = [None] if len(self.seeds) == 1 else list(range(len(self.seeds)))  # ``None``: one policy acts for all slots
        self._policies = [
            self._policy_class.build(self._env, seed, student) for seed, student in zip(self.seeds, self._students, strict=True)
        ]
        self._episode = PopulationEpisode(self._env, self._policies, start_episode(self._env, self._policies, self.seeds))
        self.diverged = np.zeros(len(self.seeds), dtype=np.bool_)

    def teach(self, updates: int, report: Callable[[int], None]) -> None:
        """Teach all students that have not diverged until they have had ``updates`` updates; call ``report`` with the number after each."""
        while self.update < updates and not self.diverged.all():
            started = time.monotonic()
            self._episode.step()
            self.diverged |= self._episode.state.over & self._selection.distillation.diverged
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
        tensors: dict[str, Tensor] = {}
        states = [state_of(policy, folder) if has_state(policy) else None for policy in self._policies]
        write_bytes(folder / POLICIES, to_bytes(tensors, {"policies": pack(states, tensors), "identity": self._identity()}))
        write_bytes(folder / STUDENTS, self._env.snapshot())
        self.unsaved_seconds = 0.0

    def load(self, folder: Path, diverged: Sequence[bool]) -> None:
        """Continue from what :meth:`save` wrote; call it on a new run.

        Args:
            folder: folder of the saved state.
            diverged: whether each student had diverged, ``[S]``.

        Raises:
            InputError: a file is missing, or has changed since it was written.
        """
        tensors, content = from_bytes(_read(folder / POLICIES), self._identity(), str(folder / POLICIES), FIX)
        students = _read(folder / STUDENTS)
        from_bytes(students, self._identity(), str(folder / STUDENTS), FIX)
        observation = self._env.restore(students)
        for number, state in enumerate(unpack(content["policies"], tensors)):
            if state is not None:
                context = PolicyContext(self._env, self._policy_class.name, self._policy_class.access, self._students[number])
                self._policies[number] = with_state(self._policies[number], state, context, folder)
        self.diverged = np.array(diverged, dtype=np.bool_)
        state = EpisodeState(observation, self.diverged.copy(), [None] * len(self.seeds))
        self._episode = PopulationEpisode(self._env, self._policies, state)
        self.update = int(self._selection.distillation.update[~self.diverged].max(initial=0))

    def _identity(self) -> Mapping[str, Any]:
        return identity(self._selection.distillation, self._selection.settings)


def _read(path: Path) -> bytes:
    try:
        with naming(path):
            return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {FIX}") from None
