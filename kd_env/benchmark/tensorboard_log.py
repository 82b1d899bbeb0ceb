"""Log a trial for TensorBoard while it runs: validation, reward, training loss, and the mean weight of each teacher."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kd_env.benchmark.recorder import Recorder
from kd_env.benchmark.trial import Trial
from kd_env.envs.selection import Selection
from kd_env.envs.step import Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVERY = 10
"""Updates over which reward, loss and weights are averaged."""


class TensorBoardLog:
    """Listens to the steps of one student, and writes scalars whose step is the number of updates of that student.

    ``DIR/tensorboard/POLICY-seed-N-ID`` is the folder of a trial; ``ID`` is the end of the trial's id. A trial that is resumed goes on in
    it, without the mean of the updates among which it was stopped. Where a policy teaches several students in a row, each of them starts
    again at 0 and replaces the one before.
    """

    def __init__(self, directory: Path, trial: Trial, selection: Selection, student: int, recorder: Recorder) -> None:
        """Prepare the log; its files are created at the first step.

        Args:
            directory: folder of the results.
            trial: the trial; its settings are written as text.
            selection: the environment's selection.
            student: number of the student in the environment.
            recorder: recorder of the trial; once it has its finished student, nothing more is logged.
        """
        name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", trial.policy)[:60].strip("_")
        self.folder = directory / "tensorboard" / f"{name}-seed-{trial.seed}-{trial.id[-8:]}"
        self._config, self._metric = trial.config, trial.resolved.task.metric
        self._teachers, self._students, self._student = selection.pool.names, selection.num_students, student
        self._labelled = selection.data.task.train.labels >= 0
        self._updates = selection.settings.distillation.updates
        self._recorder = recorder
        self._writer: SummaryWriter | None = None
        self._first_whole = 0
        self._reset()

    def __call__(self, step: Step) -> None:
        """Take one step; write the means of every ten updates and of the last ones, and validation when it is measured."""
        if not step.active[self._student] or self._recorder.finished is not None:
            return
        update = int(step.batch.update[self._student]) + 1
        if self._writer is None or update == 1:
            self._open(update)
        assert self._writer is not None
        arrays = (step.weights, step.student_ce, step.rewards, step.batch.example_ids)
        weights, losses, rewards, examples = (np.split(part, self._students)[self._student] for part in arrays)
        self._weights.append(weights.mean(0))
        self._rewards.append(float(rewards.mean()))
        if (labelled := self._labelled[examples]).any():
            self._losses.append(float(losses[labelled].mean()))
        if update % EVERY == 0 or update == self._updates or step.diverged[self._student]:
            if update > self._first_whole:
                self._write_means(update)
            self._reset()
        if step.validation is not None and np.isfinite(step.validation[self._student]):
            self._writer.add_scalar(f"validation/{self._metric}", step.validation[self._student], update)

    def _write_means(self, update: int) -> None:
        assert self._writer is not None
        self._writer.add_scalar("train/reward", np.mean(self._rewards), update)
        if self._losses:
            self._writer.add_scalar("train/cross_entropy", np.mean(self._losses), update)
        for name, weight in zip(self._teachers, np.mean(self._weights, 0), strict=True):
            self._writer.add_scalar(f"selection/{name}", weight, update)

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, update: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        self._first_whole = -(-(update - 1) // EVERY) * EVERY  # updates before the first whole mean
        self._writer = SummaryWriter(str(self.folder), purge_step=update)
        self._writer.add_text("config", f"```\n{json.dumps(self._config, indent=1)}\n```", 0)
        self._reset()

    def _reset(self) -> None:
        self._weights: list[np.ndarray] = []
        self._losses: list[float] = []
        self._rewards: list[float] = []
