"""Run trials and write the report: what ``kd-env demo``, ``bench`` and ``run`` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from kd_env.cli.options import command_line, num_cores
from kd_env.cli.tuned import tune_part
from kd_env.errors import InputError


def connect(context: typer.Context, executor: str, workers: int) -> None:
    """Connect to Ray until the command ends, if it is the executor. Commands call this first: workers load libraries meanwhile."""
    from kd_env.benchmark.ray_cluster import ray_cluster

    if executor == "ray":
        _require_one_process("--executor ray")
        context.with_resource(ray_cluster(workers or num_cores()))


def run_trials(
    trials: list[Any],
    out: Path,
    workers: int,
    quiet: bool,
    population: int = 1,
    paper: bool = False,
    checkpoint_minutes: float = 5.0,
    executor: str = "process",
    gpus_per_trial: float = 0.0,
) -> Path:
    """Run the trials that are not finished yet and return the path of the report.

    Args:
        trials: of :class:`~kd_env.benchmark.trial.Trial`.
        workers: trials at the same time; 0 for as many as there are cores.
        population: seeds of a policy that are run at once as one population.
        paper: whether to write the tables and figures of a paper too.
        checkpoint_minutes: time between two checkpoints of a trial.
        executor: what runs the trials, see :func:`kd_env.benchmark.run.run`.
        gpus_per_trial: part of a GPU that Ray reserves for a trial.
    """
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.report import write_report
    from kd_env.benchmark.run import run
    from kd_env.benchmark.shared_student import is_first, joined, num_processes

    if num_processes() > 1:
        executor = "local"
    with joined(out) as folder, Progress(quiet or not is_first()) as progress:
        run(trials, folder, progress, workers or num_cores(), population, checkpoint_minutes, executor, gpus_per_trial)
    return write_report(out, paper) if is_first() else out


def run_suite(
    name: str,
    suite: Any,
    seeds: Sequence[int] | None,
    out: Path,
    workers: int,
    quiet: bool,
    paper: bool = False,
    checkpoint_minutes: float = 5.0,
    tensorboard: bool = False,
    tune: int | None = None,
    executor: str = "process",
    gpus_per_trial: float = 0.0,
) -> None:
    """Run a suite part by part and print the path of the report.

    Args:
        name: name of the suite, which its records have.
        suite: a :class:`~kd_env.benchmark.suites.Suite`.
        seeds: seeds in place of the suite's; ``None`` for the suite's.
        tune: number of validation trials with which each policy is tuned first; ``None`` for no tuning.
    """
    from kd_env.benchmark.changed_defaults import require_same_defaults

    parts = [replace(part, seeds=seeds or part.seeds or suite.seeds) for part in suite.parts]
    if tune is not None:
        _require_fresh_seeds(parts)
        _require_one_process("--tune")
    workers = workers or num_cores()
    of_parts = [[replace(trial, tensorboard=tensorboard) for trial in part.trials(name, part.seeds, command_line())] for part in parts]
    require_same_defaults([trial for trials in of_parts for trial in trials], out)  # before the first part, which can take hours
    for position, (part, trials) in enumerate(zip(parts, of_parts, strict=True)):
        if tune is not None:
            tuned = tune_part(part, parts[:position], tune, out, workers, quiet, checkpoint_minutes, executor, gpus_per_trial)
            trials += [replace(trial, tuned=tuned[trial.policy]) for trial in trials]
        page = run_trials(trials, out, workers, quiet, part.population, paper, checkpoint_minutes, executor, gpus_per_trial)
    print(page)


def _require_one_process(option: str) -> None:
    from kd_env.benchmark.shared_student import num_processes

    if num_processes() > 1:
        raise InputError(f"{option}: {num_processes()} processes share one student here; run it in one")


def _require_fresh_seeds(parts: Sequence[Any]) -> None:
    from kd_env.benchmark.tuning.tune import require_fresh

    for part in parts:
        require_fresh(part.seeds)
