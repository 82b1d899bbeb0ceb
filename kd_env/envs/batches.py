"""Define the ``gymnasium.make`` form of all environments of this package: one step is one mini-batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np

from kd_env.distillation import Distillation
from kd_env.envs import arguments, observations, render
from kd_env.envs.actions import ActionKind
from kd_env.envs.copying import CopiedByFork
from kd_env.envs.make import make_selection
from kd_env.envs.step import Step
from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher
from kd_env.types import Observation


class BatchEnv(CopiedByFork, gym.Env[Observation, Any]):
    """Base class of environments with one student.

    Attributes:
        action_base: base class of the environment's kinds of action.
        defaults: settings that differ from the general defaults.
    """

    metadata = {"render_modes": list(arguments.RENDER_MODES), "render_fps": 10}
    action_base: ClassVar[type[ActionKind]]
    defaults: ClassVar[Mapping[str, Any]]

    def __init__(
        self,
        task: str | Task = "digits",
        teachers: str | Pool | Sequence[Teacher] | None = None,
        bank: str | Path | None = None,
        data_dir: str | None = None,
        render_mode: str | None = None,
        info: str = "full",
        **settings: Any,  # fields of kd_env.envs.settings, checked there
    ) -> None:
        """Make the environment.

        Args:
            task, teachers: names, or objects.
            bank: folder of the bank of these teachers; default: it is found or built in the cache.
            data_dir: folder of the task's data, for tasks that need one.
            render_mode: ``rgb_array`` or ``ansi``.
            info: ``full``, or ``minimal`` for constant keys.
            settings: the other settings, see ``kd-env list settings``.

        Raises:
            InputError: a keyword is unknown, or its value cannot be used.
        """
        if settings.get("num_students") not in (None, 1):
            raise InputError(f"num_students={settings['num_students']}: gymnasium.make steps one student; make_vec steps a population")
        self.render_mode, self.minimal_info = arguments.checked_render_mode(render_mode), arguments.is_minimal(info)
        self.selection = make_selection(self.action_base, self.defaults, task, teachers, bank, data_dir, **settings)
        slots = self.selection.num_slots
        self.observation_space = observations.space(self.selection.observation(), slots)  # type: ignore[assignment]
        self.action_space = self.selection.action_kind.space(slots)
        self.history = render.begin(self.selection) if render_mode else None

    @property
    def distillation(self) -> Distillation:
        """The current run."""
        return self.selection.distillation

    @property
    def finished(self) -> Distillation | None:
        """The last run that ended, with the finished student; ``None`` before the first. A run that a wrapper truncates does not end."""
        return self.selection.finished[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start a new student and return the first observation."""
        seed = arguments.checked_seed(seed)
        arguments.checked_options(options)
        super().reset(seed=seed)
        self.selection.begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        if self.history is not None:
            self.history = render.begin(self.selection)
        ids = {"example_ids": self.distillation.observe().example_ids.copy()}
        return self._observation(), {**ids, "diverged": np.bool_(False)} if self.minimal_info else ids

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Teach one mini-batch or one phase.

        Args:
            action: element of ``action_space``, or a whole :class:`~kd_env.types.Decision` for the B instances, which teaches one
                mini-batch.

        Raises:
            InputError: the episode has ended, or the action is not in the space.
        """
        if self.distillation.done:
            raise InputError("step: the episode has ended; call reset() first")
        step = self.selection.advance(action)
        if self.history is not None:
            render.add(self.history, self.selection, step, 0)
        return self._observation(), float(step.rewards.mean()), bool(self.distillation.done), False, self._info(step)

    def render(self) -> Any:
        """Return the episode so far: a picture ``[480, 640, 3]`` or a text, depending on ``render_mode``."""
        if self.history is None:
            gym.logger.warn('render() does nothing without a render_mode; make the environment with render_mode="rgb_array" or "ansi"')
            return None
        return render.frame(self.history) if self.render_mode == "rgb_array" else render.text(self.history)

    def snapshot(self) -> bytes:
        """Return the state as self-contained bytes, see :meth:`kd_env.envs.selection.Selection.snapshot`."""
        return self.selection.snapshot(self.np_random)

    def restore(self, state: bytes) -> Observation:
        """Continue from a snapshot and return its observation."""
        self.selection.restore(state, self.np_random)
        if self.history is not None:
            self.history = render.begin(self.selection)
        return self._observation()

    def fork(self) -> Self:
        """Return an independent environment in the same state; the bank is shared."""
        fork = self._shallow_copy()
        fork._np_random, fork.action_space, fork.history = copy.deepcopy((self._np_random, self.action_space, self.history))
        fork.selection = self.selection.fork()
        return fork

    def _observation(self) -> Observation:
        return {name: block.reshape(-1) for name, block in self.selection.observation().items()}

    def _info(self, step: Step) -> dict[str, Any]:
        if self.minimal_info:
            return {"example_ids": step.batch.example_ids.copy(), "diverged": step.diverged[0]}  # a NumPy value, for TorchRL
        options = self.selection.settings.interface
        per_instance = options.granularity == "instance"
        info: dict[str, Any] = {
            "example_ids": step.batch.example_ids.copy(),
            "reward_terms": {name: values.copy() if per_instance else float(values[0]) for name, values in step.reward_terms.items()},
            "diverged": bool(step.diverged[0]),
            **step.credit,
        }
        if step.credit_fold is not None:
            info["credit_fold"] = int(step.credit_fold[0])
        if step.improvement is not None and np.isfinite(step.improvement[0]):
            info["reward_terms"]["improvement"] = float(step.improvement[0])
        if options.observe_labels:
            info["reward_terms"]["student_ce"] = step.student_ce
        if step.validation is not None and np.isfinite(step.validation[0]):
            info["validation"] = float(step.validation[0])
        return info
