"""Share the trials of a results folder among processes: a trial is run by the process that holds its lock, which a dead process cannot.

In: units of trials, and a function that runs them. Out: all of them are finished, here or elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from kd_env.benchmark import records
from kd_env.benchmark.checkpoints import FOLDER, Checkpoints
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run_trial import Report, run_trials
from kd_env.benchmark.saved_policies import agent_file, can_be_saved
from kd_env.benchmark.trial import Trial
from kd_env.interrupts import raise_if_interrupted
from kd_env.paths import claim

PAUSE = 1.0
"""Seconds between two looks at trials that other processes run."""

Unit = Sequence[Trial]
"""Trials that run as one population."""


@dataclass(frozen=True)
class Outcome:
    """What became of a unit.

    Attributes:
        unit: the trials.
        new: their new records; fewer than trials if another process had finished some.
        holder: the process that runs one of them now; empty if none does.
    """

    unit: Unit
    new: Sequence[records.Record] = ()
    holder: str = ""


def run_unit(unit: Unit, checkpoints: Checkpoints, finished: records.FinishedTrials, reporter: Callable[[Trial], Report | None]) -> Outcome:
    """Run those trials of a unit that are not finished, and append their records, unless another process runs one of them."""
    directory = checkpoints.directory
    with ExitStack() as claims:
        for trial in sorted(unit, key=lambda trial: trial.id):
            if holder := claims.enter_context(claim(directory / FOLDER / f"{trial.id}.lock")):
                return Outcome(unit, holder=holder)
        done = finished.update()
        todo = [trial for trial in unit if trial.id not in done or misses_policy(trial, checkpoints)]
        new = run_trials(todo, directory, reporter, checkpoints=checkpoints) if todo else []
        if new:
            records.append(directory, *new)  # a population runs together or not at all
        for trial in unit:
            checkpoints.remove(trial)
    return Outcome(unit, new)


def run_all(units: Sequence[Unit], run: Callable[[Sequence[Unit]], Iterable[Outcome]], progress: Progress) -> None:
    """Run units until all are finished, here or by other processes.

    Args:
        run: runs some units, as :func:`run_unit` does, in any order.
        progress: is told what is finished.
    """
    waits = False
    while units:
        claimed: list[Outcome] = []
        for outcome in run(units):
            if outcome.holder:
                claimed.append(outcome)
                continue
            here = {record["trial"] for record in outcome.new}
            for record in outcome.new:
                progress.finished(record)
            for trial in outcome.unit:
                if trial.id not in here:
                    progress.finished_elsewhere(trial)
            raise_if_interrupted()
        units = [outcome.unit for outcome in claimed]
        if claimed and not waits:
            waits = True
            holders = ", ".join(dict.fromkeys(outcome.holder for outcome in claimed))
            progress.say(f"waiting for {sum(map(len, units))} trials that {holders} runs")
        if claimed:
            time.sleep(PAUSE)
            raise_if_interrupted()


def misses_policy(trial: Trial, checkpoints: Checkpoints) -> bool:
    """Return whether a finished trial must run again for its policy."""
    wanted = trial.save_policy and can_be_saved(trial.resolved.policy)
    return wanted and not agent_file(checkpoints.directory, trial.id).with_suffix(".json").exists()
