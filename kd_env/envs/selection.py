"""Teacher selection as rows: what the one-step-a-batch env and the instance slots both show.

In: a decision for each row (B rows, or one for the whole batch). Out: observation, reward and info of each row. One object, two views,
so both give the same student for the same actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from kd_env import tasks
from kd_env.distillation import Distillation, Material
from kd_env.envs import actions, credit, observations
from kd_env.envs.rewards import REWARDS, StepRecord
from kd_env.errors import InputError
from kd_env.knowledge import response
from kd_env.knowledge.bank import open_bank
from kd_env.settings import Settings
from kd_env.settings import settings as make_settings
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher, load_pool
from kd_env.types import Decision, Features, Observation

DIVERGED_REWARD = -10.0
"""Paid once to every row when the student diverges; finite, and far below what an update loses in held-out loss."""


@dataclass(frozen=True)
class Step:
    """What one update gave each row."""

    features: Features
    weights: np.ndarray  # [B, K]
    student_ce: np.ndarray  # [B], before the update
    rewards: np.ndarray  # [rows]
    credit: np.ndarray | None  # [rows, K]
    improvement: float | None
    validation: float | None
    diverged: bool


class Selection:
    """A distillation run behind observations, actions and rewards."""

    def __init__(self, material: Material, pool: Pool, settings: Settings) -> None:
        """Take the shared material; :meth:`begin` starts a run."""
        self.material, self.pool, self.settings = material, pool, settings
        self.rows = settings.batch_size if settings.granularity == "instance" else 1
        self.distillation = Distillation(material, settings, seed=0)
        self.finished: Distillation | None = None
        self.listeners: list[Callable[[Step], None]] = []

    @property
    def num_teachers(self) -> int:
        """K."""
        return len(self.pool.teachers)

    def fork(self) -> Selection:
        """An independent copy in the same state; material and pool are shared, listeners stay behind."""
        twin = Selection(self.material, self.pool, self.settings)
        twin.distillation, twin.finished = self.distillation.fork(), self.finished
        return twin

    def begin(self, seed: int) -> Observation:
        """Start a new student from ``seed``; a finished one stays in ``finished``."""
        self.distillation = Distillation(self.material, self.settings, seed)
        return self.observation()

    def observation(self) -> Observation:
        """Blocks ``[rows, F]`` of the mini-batch the student sees next."""
        seen = observations.observe(self.distillation.observe(), self.settings.features, self.settings.observe_labels)
        if self.rows > 1 or self.settings.batch_size == 1:
            return seen
        return {name: block.mean(0, keepdims=True) for name, block in seen.items()}

    def advance(self, action: np.ndarray) -> Step:
        """Teach one mini-batch as ``action`` says (``rows`` decisions) and pay for it."""
        run, options = self.distillation, self.settings
        features = run.observe()
        chosen = actions.to_weights(options.action, action, self.num_teachers, self.rows)
        weights = np.broadcast_to(chosen, (options.batch_size, self.num_teachers))
        decision = Decision.response(
            torch.tensor(weights, dtype=run.student.dtype, device=run.student.device), options.strength, options.temperature
        )
        given = None if options.credit == "shared" else credit.CREDITS[options.credit](run)  # [B, K]
        outcome = run.apply(decision)
        if given is not None and options.normalize_credit:
            given = credit.normalize(given)
        if given is not None:
            rewards = self._per_row((decision.weights["response"] * given).sum(1))
        else:
            rewards = self._per_row(REWARDS[options.reward](self._record(features, decision, outcome.improvement)))
        every = options.validation_every or max(options.updates // 20, 1)
        loss, metric = run.validate() if run.done or run.update % every == 0 else (0.0, None)
        run.diverged = outcome.diverged or not np.isfinite([*rewards, loss]).all()
        if run.diverged:
            rewards, metric = np.full(self.rows, DIVERGED_REWARD), None
            given = None if given is None else torch.zeros_like(given)
        step = Step(
            features=features,
            weights=weights,
            student_ce=outcome.student_ce.float().cpu().numpy(),
            rewards=rewards,
            credit=None if given is None else self._per_row(given),
            improvement=outcome.improvement,
            validation=metric,
            diverged=run.diverged,
        )
        if run.done:
            self.finished = run
        for listener in self.listeners:
            listener(step)
        return step

    def _per_row(self, values: torch.Tensor) -> np.ndarray:
        rows: np.ndarray = values.double().cpu().numpy()
        return rows if self.rows == len(rows) else rows.mean(0, keepdims=True)

    def _record(self, features: Features, decision: Decision, improvement: float | None) -> StepRecord:
        run, options = self.distillation, self.settings
        if options.reward == "dev_improvement":
            return StepRecord(options.batch_size, improvement or 0.0)
        after = run.run_again()
        terms = response.every_teacher(after, features.teacher_logits, options.temperature)  # [B, K]
        return StepRecord(
            options.batch_size,
            dev_metric=run.meter.metric,
            student_ce=cross_entropy(after, features.labels, reduction="none"),
            distillation=(decision.weights["response"] * terms).sum(1),
            mix=options.reward_mix,
        )


def make_selection(
    task: str | Task, teachers: str | Pool | Sequence[Teacher] | None, bank: str | Path | None, **keywords: Any
) -> Selection:
    """Load the task, the pool and its bank, and check the settings.

    Raises:
        InputError: anything in the keywords that cannot be used.
    """
    loaded = tasks.load(task) if isinstance(task, str) else task
    if not isinstance(loaded, Task):
        raise InputError(f"task={task!r}: expected a name or a kd_env.tasks.Task, got {type(task).__name__}")
    options = make_settings(loaded, **keywords)
    named = loaded.defaults.pool if teachers is None else teachers
    if isinstance(named, str):
        pool = load_pool(named, loaded)
    else:
        pool = named if isinstance(named, Pool) else Pool("own", tuple(named))
    opened = open_bank(loaded, pool, None if bank is None else Path(bank))
    return Selection(Material.of(loaded, opened), pool, options)
