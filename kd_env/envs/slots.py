"""Define the ``gymnasium.make_vec`` form of all environments of this package: a mini-batch is a vector environment.

``num_envs = S * B`` instance slots are the instances of S students' mini-batches. Each slot observes one instance and decides for it alone.
The B decisions of a student make one update. So a policy per instance, of any library, works unchanged for any B. With
``granularity="batch"`` there is one slot per student.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from kd_env.distillation import Distillation
from kd_env.envs import arguments, observations, render, slot_info
from kd_env.envs.actions import ActionKind
from kd_env.envs.copying import CopiedByFork
from kd_env.envs.make import make_selection
from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher
from kd_env.types import Decision, Observation


class SlotsEnv(CopiedByFork, VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Base class of vector environments. A slot is an instance of a mini-batch, or with ``granularity="batch"`` a student.

    ``info`` contains arrays with Gymnasium's ``_key`` masks. The slots of a student end together. A student that diverges ends before the
    others. It is reset alone, with a seed from the environment's generator.
    """

    action_base: ClassVar[type[ActionKind]]
    defaults: ClassVar[Mapping[str, Any]]

    def __init__(
        self,
        num_envs: int = 1,
        task: str | Task = "digits",
        teachers: str | Pool | Sequence[Teacher] | None = None,
        bank: str | Path | None = None,
        data_dir: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        info: str = "full",
        **settings: Any,  # fields of kd_env.envs.settings, checked there
    ) -> None:
        """Make the environment.

        Args:
            num_envs: number of slots: ``num_students`` times the batch size, or ``num_students`` with ``granularity="batch"``.
            task, teachers: names, or objects.
            bank: folder of the bank of these teachers; default: it is found or built in the cache.
            data_dir: folder of the task's data, for tasks that need one.
            autoreset_mode: ``next_step``, ``same_step`` or ``disabled``, as Gymnasium defines them.
            max_episode_steps: number of steps after which a student is truncated; default: none.
            render_mode: ``rgb_array`` or ``ansi``.
            info: ``full``, or ``minimal`` for constant keys.
            settings: the other settings, see ``kd-env list settings``.

        Raises:
            InputError: a keyword is unknown, or its value cannot be used.
        """
        num_envs = arguments.checked_count("num_envs", num_envs)
        if (settings.get("granularity") or self.defaults.get("granularity", "instance")) == "instance":
            settings["batch_size"] = arguments.whole_batch_size(num_envs, settings)
        elif num_envs != (settings.get("num_students") or 1):
            raise InputError(f"num_envs={num_envs}: with granularity='batch' there is one slot per student; give num_envs=num_students")
        self.autoreset_mode = arguments.checked_autoreset_mode(autoreset_mode)
        self.metadata = {"render_modes": list(arguments.RENDER_MODES), "render_fps": 10, "autoreset_mode": self.autoreset_mode}
        self.render_mode, self.minimal_info = arguments.checked_render_mode(render_mode), arguments.is_minimal(info)
        self.selection = make_selection(self.action_base, self.defaults, task, teachers, bank, data_dir, **settings)
        self.num_envs = num_envs
        self.max_episode_steps = None if max_episode_steps is None else arguments.checked_count("max_episode_steps", max_episode_steps)
        self.single_observation_space = observations.space(self.selection.observation())
        self.single_action_space = self.selection.action_kind.space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.histories = [render.begin(self.selection) for _ in range(self.num_students if render_mode else 0)]
        self._steps = np.zeros(self.num_students, dtype=np.int64)
        self._ended = np.ones(self.num_students, dtype=np.bool_)  # whether a student's episode is over or has not begun

    @property
    def num_students(self) -> int:
        """Number of students S."""
        return self.selection.num_students

    @property
    def distillation(self) -> Distillation:
        """The current run."""
        return self.selection.distillation

    @property
    def finished(self) -> Any:
        """The last run that ended, with the finished student; a tuple of them for several students. ``None`` before the first end."""
        finished = self.selection.finished
        return finished[0] if self.num_students == 1 else tuple(finished)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new students.

        Args:
            seed: seed of student 0 (student s uses ``seed + s``), or one seed per slot, of which each student uses its first.
            options: ``{"reset_mask": mask}`` resets only the students of the slots in ``mask``.

        Raises:
            InputError: a seed or an option cannot be used, or the number of seeds is neither 1 nor ``num_envs``.
        """
        students = self._whole_students(arguments.checked_options(options, ("reset_mask",)).get("reset_mask"))
        values: Any = seed
        slot_seeds = [arguments.checked_seed(value) for value in (list(values) if np.shape(values) else [values])]
        if len(slot_seeds) not in (1, self.num_envs):
            raise InputError(f"seed: {len(slot_seeds)} seeds for {self.num_envs} slots; use one number, or one per slot")
        super().reset(seed=slot_seeds[0])
        if len(slot_seeds) == 1:
            first = slot_seeds[0] if slot_seeds[0] is not None else self._draw() if students.any() else 0
            seeds = [first + s for s in range(self.num_students)]
        else:
            seeds = [self._draw() if value is None else value for value in slot_seeds[:: self.num_envs // self.num_students]]
        self._begin(students, seeds)
        info = slot_info.with_reset(self.selection, {}, self._slots_of(students))
        return self.selection.observation(), slot_info.minimal(info) if self.minimal_info else info

    def step(self, actions: np.ndarray | Decision) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Teach each student one mini-batch or phase. Finished students are reset according to ``autoreset_mode``.

        Args:
            actions: one action per slot, or a whole :class:`~kd_env.types.Decision` for the S * B instances (one mini-batch).

        Raises:
            InputError: the episode has ended, or the actions are not in the space.
        """
        ended_before = self._ended.copy()
        resets_now, not_begun = self.autoreset_mode is AutoresetMode.NEXT_STEP, ended_before & (self._steps == 0)
        if not_begun.any() or (ended_before.any() and not resets_now):
            raise InputError("step: the episode has ended (or none has begun); call reset() first")
        rewards, terminated, truncated = (np.zeros(self.num_envs), *np.zeros((2, self.num_envs), dtype=np.bool_))
        info: dict[str, Any] = {}
        if not ended_before.all():
            step = self.selection.advance(actions, ~ended_before)
            for student in np.flatnonzero(~ended_before).tolist() if self.histories else ():
                render.add(self.histories[student], self.selection, step, student)
            self._steps += ~ended_before
            terminated_students = ~ended_before & self.distillation.done
            truncated_students = ~ended_before & ~terminated_students & (self._steps >= (self.max_episode_steps or np.inf))
            for student in np.flatnonzero(truncated_students).tolist():
                self.selection.finished[student] = self.distillation.of_student(student)
            self._ended = terminated_students | truncated_students
            rewards = step.rewards
            terminated, truncated = self._slots_of(terminated_students), self._slots_of(truncated_students)
            info = slot_info.of_step(self.selection, step, self._slots_of(~ended_before))
        if ended_before.any():
            self._begin(ended_before, [self._draw() for _ in range(self.num_students)])
            info = slot_info.with_reset(self.selection, info, self._slots_of(ended_before))
        observation = self.selection.observation()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            observation, info = self._reset_within_the_step(observation, info)
        return observation, rewards, terminated, truncated, slot_info.minimal(info) if self.minimal_info else info

    def render(self) -> tuple[Any, ...] | None:
        """Return the episode so far, for each slot that of its student: ``num_envs`` pictures or texts, depending on ``render_mode``."""
        if not self.histories:
            gym.logger.warn('render() does nothing without a render_mode; make the slots with render_mode="rgb_array" or "ansi"')
            return None
        shown = [render.frame(history) if self.render_mode == "rgb_array" else render.text(history) for history in self.histories]
        return tuple(shown[slot * self.num_students // self.num_envs] for slot in range(self.num_envs))

    def snapshot(self) -> bytes:
        """Return the state as self-contained bytes, see :meth:`kd_env.envs.selection.Selection.snapshot`."""
        return self.selection.snapshot(self.np_random)

    def restore(self, state: bytes) -> Observation:
        """Continue from a snapshot and return its observation."""
        self.selection.restore(state, self.np_random)
        self.histories = [render.begin(self.selection, student) for student in range(len(self.histories))]
        self._steps = -(-self.distillation.update // self.selection.settings.interface.updates_per_phase)
        self._ended = self.distillation.done | (self._steps >= (self.max_episode_steps or np.inf))
        return self.selection.observation()

    def fork(self) -> Self:
        """Return independent slots in the same state; the bank is shared."""
        fork = self._shallow_copy()
        fork._np_random, fork.histories = copy.deepcopy((self._np_random, self.histories))
        fork.single_action_space, fork.action_space = copy.deepcopy((self.single_action_space, self.action_space))
        fork._steps, fork._ended = self._steps.copy(), self._ended.copy()
        fork.selection = self.selection.fork()
        return fork

    def _reset_within_the_step(self, last: Observation, info: dict[str, Any]) -> tuple[Observation, dict[str, Any]]:
        ended = self._slots_of(self._ended)
        final_blocks = np.empty(self.num_envs, dtype=object)
        for slot in np.flatnonzero(ended):
            final_blocks[slot] = {name: block[slot] for name, block in last.items()}
        self._begin(self._ended, [self._draw() for _ in range(self.num_students)])
        info_of_ended, info = slot_info.of_slots(info, ended), slot_info.of_slots(info, ~ended)
        final = {"final_obs": final_blocks, "_final_obs": ended, "final_info": info_of_ended, "_final_info": ended.copy()}
        return self.selection.observation(), {**slot_info.with_reset(self.selection, info, ended), **final}

    def _begin(self, which: np.ndarray, seeds: Sequence[int]) -> None:
        if which.all():
            self.selection.begin(seeds)
        else:
            for student in np.flatnonzero(which).tolist():
                self.selection.reset_student(student, seeds[student])
        for student in np.flatnonzero(which).tolist() if self.histories else ():
            self.histories[student] = render.begin(self.selection, student)
        self._steps[which], self._ended = 0, self._ended & ~which

    def _draw(self) -> int:
        return int(self.np_random.integers(2**31))

    def _whole_students(self, mask: Any) -> np.ndarray:
        mask = np.ones(self.num_envs, dtype=np.bool_) if mask is None else np.asarray(mask)
        by_student = mask.astype(np.bool_).reshape(self.num_students, -1) if mask.shape == (self.num_envs,) else None
        if by_student is None or (by_student.any(1) != by_student.all(1)).any():
            raise InputError(f"reset_mask: expected {self.num_envs} booleans, equal for the slots of one student, which reset together")
        return np.asarray(by_student.all(1))

    def _slots_of(self, students: np.ndarray) -> np.ndarray:
        return np.repeat(students, self.num_envs // self.num_students)
