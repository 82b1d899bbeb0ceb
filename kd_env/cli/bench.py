"""``kd-env bench``: a named suite of trials."""

from __future__ import annotations

from typing import Annotated

import typer

from kd_env.cli.options import CheckpointMinutes, DataDir, Out, Paper, Quiet, TensorBoard, Workers, read_seeds
from kd_env.cli.trials import run_suite


def bench(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite, see kd-env list suites, or FILE.toml.")],
    out: Out,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="SEEDS", help="Seeds, as 0-4 or 0,3,7. Default: the suite's.")] = None,
    data_dir: DataDir = None,
    workers: Workers = 0,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    paper: Paper = False,
) -> None:
    """Run a suite of trials, with a report.

    Finished trials are not run again, and stopped trials are resumed.
    """
    from kd_env.benchmark.suites import find

    run_suite(
        *find(suite, data_dir), None if seeds is None else read_seeds(seeds), out, workers, quiet, paper, checkpoint_minutes, tensorboard
    )
