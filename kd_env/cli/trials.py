"""Run trials and write the report: what ``kd-env demo``, ``bench`` and ``run`` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from kd_env.cli.options import command_line, num_cores
from kd_env.cli.run_options import RunOptions
from kd_env.cli.tuned import tune_part
from kd_env.errors import InputError


def connect(context: typer.Context, options: RunOptions) -> None:
    """Connect to Ray until the command ends, if it is the executor. Commands call this first: workers load libraries meanwhile."""
    from kd_env.benchmark.ray_cluster import ray_cluster

    if options.executor == "ray":
        _require_one_process("--executor ray")
        context.with_resource(ray_cluster(options.workers or num_cores()))


def run_trials(trials: Sequence[Any], out: Path, options: RunOptions, population: int = 1, paper: bool = False) -> Path:
    """Run the trials that are not finished yet and return the path of the report.

    Args:
        trials: of :class:`~kd_env.benchmark.trial.Trial`.
        out: the results folder.
        options: how they are run.
        population: seeds of a policy that are run at once as one population.
        paper: whether to write the tables and figures of a paper too.
    """
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.report import write_report
    from kd_env.benchmark.shared_student import is_first, joined, num_processes

    if num_processes() > 1:
        options = replace(options, executor="local")
    with joined(out) as folder, Progress(options.quiet or not is_first()) as progress:
        options.run(trials, folder, progress, population)
    return write_report(out, paper) if is_first() else out


def run_suite(
    name: str,
    suite: Any,
    seeds: Sequence[int] | None,
    out: Path,
    options: RunOptions,
    paper: bool = False,
    tensorboard: bool = False,
    tune: int | None = None,
) -> None:
    """Run a suite part by part and print the path of the report.

    Args:
        name: name of the suite, which its records have.
        suite: a :class:`~kd_env.benchmark.suites.Suite`.
        seeds: seeds in place of the suite's; ``None`` for the suite's.
        out: the results folder.
        options: how the trials are run.
        paper: whether to write the tables and figures of a paper too.
        tensorboard: whether to write a TensorBoard log of each trial.
        tune: number of validation trials with which each policy is tuned first; ``None`` for no tuning.
    """
    from kd_env.benchmark.changed_defaults import require_same_defaults

    parts = [replace(part, seeds=seeds or part.seeds or suite.seeds) for part in suite.parts]
    if tune is not None:
        _require_fresh_seeds(parts)
        _require_one_process("--tune")
    of_parts = [[replace(trial, tensorboard=tensorboard) for trial in part.trials(name, part.seeds, command_line())] for part in parts]
    require_same_defaults([trial for trials in of_parts for trial in trials], out)  # before the first part, which can take hours
    for position, (part, trials) in enumerate(zip(parts, of_parts, strict=True)):
        if tune is not None:
            tuned = tune_part(part, parts[:position], tune, out, options)
            trials += [replace(trial, tuned=tuned[trial.policy]) for trial in trials]
        page = run_trials(trials, out, options, part.population, paper)
    print(page)


def _require_one_process(option: str) -> None:
    from kd_env.benchmark.shared_student import num_processes

    if num_processes() > 1:
        raise InputError(f"{option}: {num_processes()} processes share one student here; run it in one")


def _require_fresh_seeds(parts: Sequence[Any]) -> None:
    from kd_env.benchmark.tuning.tune import require_fresh

    for part in parts:
        require_fresh(part.seeds)
