"""``kd-env bench``: a named suite of trials."""

from __future__ import annotations

from typing import Annotated

import typer

from kd_env.cli.options import CheckpointMinutes, DataDir, Executor, GpusPerTrial, Out, Paper, Quiet, TensorBoard, Workers, read_seeds
from kd_env.cli.run_options import RunOptions
from kd_env.cli.trials import connect, run_suite


def bench(
    context: typer.Context,
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite, see kd-env list suites, or FILE.toml.")],
    out: Out,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="SEEDS", help="Seeds, e.g. 0-4 or 0,3,7. Default: the suite's.")] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            "--tune",
            min=2,
            metavar="N",
            help="First tune each policy with N trials on validation, on separate seeds; then run it with its defaults and as tuned. "
            "Needs Optuna.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Task in place of the suite's, for a suite of one task, e.g. cifar10.")
    ] = None,
    data_dir: DataDir = None,
    workers: Workers = 0,
    executor: Executor = "process",
    gpus_per_trial: GpusPerTrial = 0.0,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    paper: Paper = False,
) -> None:
    """Run a suite of trials, with a report.

    Finished trials are not run again, and stopped trials are resumed.
    """
    options = RunOptions(workers, executor, gpus_per_trial, checkpoint_minutes, quiet)
    connect(context, options)
    from kd_env.benchmark.suites import find

    named, seed_list = find(suite, data_dir, task), None if seeds is None else read_seeds(seeds)
    run_suite(*named, seed_list, out, options, paper, tensorboard, tune)
