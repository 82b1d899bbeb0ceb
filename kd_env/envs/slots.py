"""``kd_env/TeacherSelection-v0`` through ``gymnasium.make_vec``: a mini-batch is a vector env.

``num_envs = B`` instance slots share one student: each slot sees its own instance and answers for it alone, and the B answers make one
student update. So a per-instance policy of any library works unchanged, for any B.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from kd_env.distillation import Distillation
from kd_env.envs import actions, observations
from kd_env.envs.selection import Step, make_selection
from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher
from kd_env.types import Observation


class TeacherSelectionVectorEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Instance slots (or, with ``granularity="batch"``, one slot) over one student.

    Spaces, rewards and ``info`` are those of :class:`~kd_env.envs.teacher_selection.TeacherSelectionEnv`, a slot for each instance;
    ``info`` holds arrays with Gymnasium's ``_key`` masks. All slots end together.
    """

    def __init__(
        self,
        num_envs: int = 1,
        task: str | Task = "digits",
        teachers: str | Pool | Sequence[Teacher] | None = None,
        bank: str | Path | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: None = None,
        **settings: Any,  # the fields of Settings, each checked there by name, type and range
    ) -> None:
        """Make ``num_envs`` slots; with instance granularity that is the batch size."""
        per_instance = settings.get("granularity", "instance") == "instance"
        if per_instance:
            if settings.get("batch_size") not in (None, num_envs):
                raise InputError(f"num_envs={num_envs} slots are one mini-batch, but batch_size={settings['batch_size']}; give one of them")
            settings["batch_size"] = num_envs
        elif num_envs != 1:
            raise InputError(f"num_envs={num_envs}: with granularity='batch' one slot decides for the batch, give num_envs=1")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode) if isinstance(autoreset_mode, AutoresetMode) else _MODES[autoreset_mode]
        except KeyError:
            raise InputError(f"autoreset_mode={autoreset_mode!r}: expected {', '.join(_MODES)}") from None
        self.selection = make_selection(task, teachers, bank, **settings)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.single_observation_space = observations.space(self.selection.observation())
        self.single_action_space = actions.space(self.selection.settings.action, self.selection.num_teachers)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._steps = 0
        self._ended = True

    @property
    def distillation(self) -> Distillation:
        """The run under way."""
        return self.selection.distillation

    @property
    def finished(self) -> Distillation | None:
        """The last run that ended: its student is the product."""
        return self.selection.finished

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new student from ``seed`` (of a list, the first; the slots share one student)."""
        mask = (options or {}).get("reset_mask")
        if mask is not None and not np.all(mask):
            raise InputError("reset_mask: the slots share one student, so all of them are reset or none")
        chosen = seed if seed is None or isinstance(seed, int) else seed[0]
        super().reset(seed=chosen)
        return self._begin(int(self.np_random.integers(2**31)) if chosen is None else chosen)

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Teach one mini-batch, each slot its own instance; after the end, reset as ``autoreset_mode`` says."""
        nothing = np.zeros(self.num_envs, dtype=np.bool_)
        if self._ended:
            if self.autoreset_mode is not AutoresetMode.NEXT_STEP or self.distillation.update == 0:
                raise InputError("step: the episode has ended (or none has begun); call reset() first")
            observation, info = self._begin(int(self.np_random.integers(2**31)))
            return observation, np.zeros(self.num_envs), nothing, nothing.copy(), info
        step = self.selection.advance(actions)
        self._steps += 1
        terminated = self.distillation.done
        truncated = not terminated and self.max_episode_steps is not None and self._steps >= self.max_episode_steps
        self._ended = terminated or truncated
        if self._ended:
            self.selection.finished = self.distillation  # a truncated one too
        observation, info = self.selection.observation(), self._info(step)
        if self._ended and self.autoreset_mode is AutoresetMode.SAME_STEP:
            final, final_info = observation, info
            observation, info = self._begin(int(self.np_random.integers(2**31)))
            everyone = np.ones(self.num_envs, dtype=np.bool_)
            final_rows = np.array([{name: block[slot] for name, block in final.items()} for slot in range(self.num_envs)], dtype=object)
            info |= {"final_obs": final_rows, "_final_obs": everyone, "final_info": final_info, "_final_info": everyone.copy()}
        return observation, step.rewards, nothing | terminated, nothing | truncated, info

    def snapshot(self) -> bytes:
        """The whole state of the run, see :meth:`kd_env.distillation.Distillation.snapshot`."""
        return self.distillation.snapshot()

    def restore(self, state: bytes) -> Observation:
        """Go back to a snapshot; what is seen there."""
        self.distillation.restore(state)
        self._steps, self._ended = self.distillation.update, self.distillation.done
        return self.selection.observation()

    def fork(self) -> TeacherSelectionVectorEnv:
        """Independent slots in the same state; the bank is shared."""
        twin = copy.copy(self)
        twin._np_random = copy.deepcopy(self._np_random)
        twin.single_action_space, twin.action_space = copy.deepcopy((self.single_action_space, self.action_space))
        twin.selection = self.selection.fork()
        return twin

    def _begin(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        observation = self.selection.begin(seed)
        self._steps, self._ended = 0, False
        return observation, self._masked({"example_ids": self._ids(self.distillation.observe().example_ids)})

    def _info(self, step: Step) -> dict[str, Any]:
        per_slot = self.selection.rows == len(step.student_ce)
        terms = {}
        if self.selection.settings.observe_labels:
            terms["student_ce"] = step.student_ce if per_slot else step.student_ce[None]
        if step.improvement is not None:
            terms["improvement"] = np.full(self.num_envs, step.improvement)
        info: dict[str, Any] = {
            "example_ids": self._ids(step.features.example_ids),
            "reward_terms": self._masked(terms),
            "diverged": np.full(self.num_envs, step.diverged),
        }
        if step.credit is not None:
            info["credit"] = step.credit
        if step.validation is not None:
            info["validation"] = np.full(self.num_envs, step.validation)
        return self._masked(info)

    def _ids(self, example_ids: np.ndarray) -> np.ndarray:
        return (example_ids if len(example_ids) == self.num_envs else example_ids[None]).copy()

    def _masked(self, info: dict[str, Any]) -> dict[str, Any]:
        return info | {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in info}


_MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP, "disabled": AutoresetMode.DISABLED}
