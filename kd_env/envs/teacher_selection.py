"""``kd_env/TeacherSelection-v0`` through ``gymnasium.make``: one step is one mini-batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from kd_env.distillation import Distillation
from kd_env.envs import actions, observations
from kd_env.envs.selection import Step, make_selection
from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher
from kd_env.types import Observation


class TeacherSelectionEnv(gym.Env[Observation, Any]):
    """Which teachers teach which instance of the mini-batch a student is about to learn from.

    ## Description
    An episode is one distillation: a fresh student, ``updates`` mini-batches. After Yuan et al. 2021 (arXiv 2012.06048). For one agent
    row an instance, use ``gymnasium.make_vec`` (see :class:`~kd_env.envs.slots.TeacherSelectionVectorEnv`).

    ## Action Space
    ``action="subset"``: ``MultiBinary(B*K)``, the selected teachers share the instance equally, nobody is legal. ``"one"``:
    ``MultiDiscrete([K]*B)``. ``"weights"``: ``Box(-1, 1, (B*K,))``, weights are ``softmax(10 a)`` of each instance. With
    ``granularity="batch"`` one decision serves the whole batch: ``MultiBinary(K)``, ``Discrete(K)``, ``Box(-1, 1, (K,))``.

    ## Observation Space
    ``Dict`` of 1-D float32 ``Box(-10, 10)``: ``instance``, ``teachers``, ``student``, ``progress``, the B instances end to end (their
    mean with ``granularity="batch"``). Columns: ``kd_env.envs.observations.COLUMNS``.

    ## Rewards
    The mean over the batch of what ``reward`` and ``credit`` pay, see ``kd_env.envs.rewards`` and ``kd_env.envs.credit``; -10 when the
    student diverges.

    ## Starting State
    ``reset(seed=s)`` draws the student's initial weights and the data order from s. Task, teachers and bank stay.

    ## Episode End
    Terminated when the budget is spent, or when the student diverges. The student is in ``env.unwrapped.finished``.

    ## Information
    ``example_ids [B]``, ``reward_terms`` (``improvement`` when measured, ``student_ce`` with ``observe_labels``), ``credit [rows, K]``
    unless ``credit="shared"``, ``validation`` when measured, ``diverged``.

    ## Arguments
    ``task``, ``teachers``, ``bank`` (a folder), and the fields of :class:`kd_env.settings.Settings`.

    ## Version History
    v0: first version.
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        task: str | Task = "digits",
        teachers: str | Pool | Sequence[Teacher] | None = None,
        bank: str | Path | None = None,
        render_mode: None = None,
        **settings: Any,  # the fields of Settings, each checked there by name, type and range
    ) -> None:
        """Make the environment; :class:`~kd_env.errors.InputError` names what is wrong with a keyword."""
        self.render_mode = render_mode
        self.selection = make_selection(task, teachers, bank, **settings)
        rows = self.selection.rows
        self.observation_space = observations.space(self.selection.observation(), rows)  # type: ignore[assignment]
        self.action_space = actions.space(self.selection.settings.action, self.selection.num_teachers, rows)

    @property
    def distillation(self) -> Distillation:
        """The run under way."""
        return self.selection.distillation

    @property
    def finished(self) -> Distillation | None:
        """The last run that ended: its student is the product."""
        return self.selection.finished

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start a new student."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        observation = self.selection.begin(drawn)
        return self._flat(observation), {"example_ids": self.distillation.observe().example_ids.copy()}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Teach one mini-batch."""
        if self.distillation.done:
            raise InputError("step: the episode has ended; call reset() first")
        step = self.selection.advance(np.asarray(action))
        return (
            self._flat(self.selection.observation()),
            float(step.rewards.mean()),
            self.distillation.done,
            False,
            _info(step, self.selection.settings.observe_labels),
        )

    def snapshot(self) -> bytes:
        """The whole state of the run, see :meth:`kd_env.distillation.Distillation.snapshot`."""
        return self.distillation.snapshot()

    def restore(self, state: bytes) -> Observation:
        """Go back to a snapshot; what is seen there."""
        self.distillation.restore(state)
        return self._flat(self.selection.observation())

    def fork(self) -> TeacherSelectionEnv:
        """An independent environment in the same state; the bank is shared."""
        twin = copy.copy(self)
        twin._np_random, twin.action_space = copy.deepcopy((self._np_random, self.action_space))
        twin.selection = self.selection.fork()
        return twin

    def _flat(self, observation: Observation) -> Observation:
        return {name: block.reshape(-1) for name, block in observation.items()}


def _info(step: Step, labels: bool) -> dict[str, Any]:
    info: dict[str, Any] = {
        "example_ids": step.features.example_ids.copy(),
        "reward_terms": {"student_ce": step.student_ce} if labels else {},
        "diverged": step.diverged,
    }
    if step.improvement is not None:
        info["reward_terms"]["improvement"] = step.improvement
    if step.credit is not None:
        info["credit"] = step.credit
    if step.validation is not None:
        info["validation"] = step.validation
    return info
