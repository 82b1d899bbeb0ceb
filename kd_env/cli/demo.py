"""``kd-env demo``: the built-in comparison of policies."""

from __future__ import annotations

from pathlib import Path

from kd_env.cli.options import Out, Quiet, Workers
from kd_env.cli.run_options import RunOptions
from kd_env.cli.trials import run_suite


def demo(out: Out = Path("results/demo"), workers: Workers = 0, quiet: Quiet = False) -> None:
    """Compare nine policies on handwritten digits, with a report.

    Each policy runs with three seeds. It needs no data and no network, and takes less than 5 minutes on two cores.
    """
    from kd_env.benchmark.suites import SUITES

    run_suite("demo", SUITES["demo"], None, out, RunOptions(workers, quiet=quiet))
