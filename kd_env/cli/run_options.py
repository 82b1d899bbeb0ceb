"""How the trials of a command are run: workers, executor, checkpoints, progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_env.cli.options import num_cores


@dataclass(frozen=True)
class RunOptions:
    """How a command runs its trials. ``kd-env demo`` sets only ``workers`` and ``quiet``.

    Attributes:
        workers: trials at the same time; 0 for as many as there are cores.
        executor: what runs the trials, see :func:`kd_env.benchmark.run.run`.
        gpus_per_trial: part of a GPU that Ray reserves for a trial.
        checkpoint_minutes: time between two checkpoints of a trial.
        quiet: whether progress is hidden.
    """

    workers: int = 0
    executor: str = "process"
    gpus_per_trial: float = 0.0
    checkpoint_minutes: float = 5.0
    quiet: bool = False

    def run(self, trials: Sequence[Any], folder: Path, progress: Any, population: int = 1) -> None:
        """Run the trials that are not finished yet.

        Args:
            trials: of :class:`~kd_env.benchmark.trial.Trial`.
            folder: the results folder.
            progress: a :class:`~kd_env.benchmark.progress.Progress`.
            population: seeds of a policy that are run at once as one population.
        """
        from kd_env.benchmark.run import run

        workers = self.workers or num_cores()
        run(trials, folder, progress, workers, population, self.checkpoint_minutes, self.executor, self.gpus_per_trial)
