"""Share the trials of a results folder among processes. A process locks a trial before it runs it; the lock is released when it ends.

In: units of trials, and a function that runs them. Out: all of them are finished, by this process or by others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from kd_env.benchmark import records
from kd_env.benchmark.checkpoints import FOLDER, CheckpointSettings
from kd_env.benchmark.kept_students import delete_others, is_kept, keep_student
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run_trial import Report, run_trials
from kd_env.benchmark.saved_policies import agent_file, can_be_saved
from kd_env.benchmark.trial import Trial
from kd_env.distillation import Distillation
from kd_env.interrupts import raise_if_interrupted
from kd_env.paths import claim

PAUSE = 1.0
"""Seconds between two checks of the trials that other processes run."""

Unit = Sequence[Trial]
"""Trials that run as one population."""


@dataclass(frozen=True)
class UnitResult:
    """The result of trying to run a unit.

    Attributes:
        unit: the trials.
        new: their new records; fewer than the trials if some were finished before.
        holder: the process that runs one of the trials now; empty if none does.
    """

    unit: Unit
    new: Sequence[records.Record] = ()
    holder: str = ""


def run_unit(
    unit: Unit, checkpoints: CheckpointSettings, finished: records.FinishedTrials, reporter: Callable[[Trial], Report | None]
) -> UnitResult:
    """Run the trials of a unit that are not finished, and append their records. Do nothing if another process runs one of them."""
    directory = checkpoints.directory
    with ExitStack() as claims:
        for trial in sorted(unit, key=lambda trial: trial.id):
            if holder := claims.enter_context(claim(directory / FOLDER / f"{trial.id}.lock")):
                return UnitResult(unit, holder=holder)
        finished_ids = finished.update()
        unfinished = [trial for trial in unit if trial.id not in finished_ids or runs_again(trial, checkpoints)]
        students: dict[str, Distillation] = {}
        keep = partial(_hold, students) if unit[0].keep != "none" else None
        new = run_trials(unfinished, directory, reporter, keep, checkpoints) if unfinished else []
        for trial, record in zip(unfinished, new, strict=True):
            if trial.id in students:
                keep_student(directory, trial, record, students.pop(trial.id))
        if new:
            records.append(directory, *new)  # of all trials of a population at once
        if new and keep is not None:
            delete_others(directory, finished.update())
        for trial in unit:
            checkpoints.remove(trial)
    return UnitResult(unit, new)


def run_all(units: Sequence[Unit], run: Callable[[Sequence[Unit]], Iterable[UnitResult]], progress: Progress) -> None:
    """Run units until all are finished, by this process or by others.

    Args:
        units: the units.
        run: runs units as :func:`run_unit` does, in any order.
        progress: shows the finished trials.
    """
    waiting = False
    while units:
        locked: list[UnitResult] = []
        for result in run(units):
            if result.holder:
                locked.append(result)
                continue
            new_ids = {record["trial"] for record in result.new}
            for record in result.new:
                progress.finished(record)
            for trial in result.unit:
                if trial.id not in new_ids:
                    progress.finished_elsewhere(trial)
            raise_if_interrupted()
        units = [result.unit for result in locked]
        if locked and not waiting:
            waiting = True
            holders = ", ".join(dict.fromkeys(result.holder for result in locked))
            progress.say(f"waiting for {sum(map(len, units))} trials that {holders} runs")
        if locked:
            time.sleep(PAUSE)
            raise_if_interrupted()


def runs_again(trial: Trial, checkpoints: CheckpointSettings) -> bool:
    """Return whether a finished trial runs again, because its policy or its student should have been saved but was not."""
    if trial.again and not is_kept(checkpoints.directory, trial.id):
        return True
    should_save = trial.save_policy and can_be_saved(trial.resolved.policy)
    return should_save and not agent_file(checkpoints.directory, trial.id).with_suffix(".json").exists()


def _hold(students: dict[str, Distillation], trial: Trial, run: Distillation) -> None:
    """Add the finished run of a trial to ``students``."""
    students[trial.id] = run
