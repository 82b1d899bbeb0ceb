"""``kd-env bench``: a named suite of trials."""

from __future__ import annotations

from typing import Annotated

import typer

from kd_env.cli.options import CheckpointMinutes, Out, Paper, Quiet, TensorBoard, Workers, read_seeds
from kd_env.cli.trials import run_suite


def bench(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Name of the suite. See kd-env list suites.")],
    out: Out,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="SEEDS", help="Seeds, as 0-4 or 0,3,7. Default: the suite's.")] = None,
    workers: Workers = 0,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    paper: Paper = False,
) -> None:
    """Run a suite of trials, with a report.

    Finished trials are not run again, and stopped trials are resumed.
    """
    from kd_env.benchmark.suites import SUITES
    from kd_env.spec import unknown

    if suite not in SUITES:
        raise unknown("suite", suite, SUITES)
    run_suite(
        suite, SUITES[suite].seeds if seeds is None else read_seeds(seeds), out, workers, quiet, paper, checkpoint_minutes, tensorboard
    )
