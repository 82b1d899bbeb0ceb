"""Print what executors cost: ``python -m speed.executors [--trials N] [--updates N] [--repeat N]``.

Each executor runs the same command ``kd-env run`` with one worker, so that the work is the same. What it takes besides the trials is the
wall time of the whole command minus what its trials took by their own records; the overhead is that minus the same of the executor
``local``. Commands take turns, and medians are printed. On a machine that is busy with something else, all numbers grow.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from kd_env.benchmark import records
from speed.measure import at_least_one

ONE_PROCESS = (
    "from unittest.mock import patch; from kd_env.benchmark import process_executor as module; "
    "from kd_env.cli import main; run = module.run_in_processes; "
    "patch.object(module, 'run_in_processes', lambda *arguments: run(*arguments[:-1], workers=1)).start(); main()"
)
"""Runs the command line with one worker process, which the command itself would not start."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m speed.executors", description="What executors cost, besides the trials.")
    parser.add_argument("--trials", type=at_least_one, default=6)
    parser.add_argument("--updates", type=at_least_one, default=600)
    parser.add_argument("--repeat", type=at_least_one, default=3)
    arguments = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    _seconds(["-m", "kd_env"], "local", arguments)  # the bank is built here, and files are read for the first time
    besides: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.repeat):
        besides["local"].append(_seconds(["-m", "kd_env"], "local", arguments))
        besides["process"].append(_seconds(["-c", ONE_PROCESS], "process", arguments))
        besides["ray, started for the run"].append(_seconds(["-m", "kd_env"], "ray", arguments))
        besides["ray, a cluster that runs already"].append(_seconds_on_a_cluster(arguments))
    of_local = median(besides["local"])
    for name, seconds in besides.items():
        values = ", ".join(f"{value:.1f}" for value in seconds)
        print(f"{name}: besides the trials {median(seconds):.1f} s ({values}), overhead {median(seconds) - of_local:.1f} s")


def _seconds_on_a_cluster(arguments: argparse.Namespace) -> float:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        return _seconds(["-m", "kd_env"], "ray", arguments, RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def _seconds(program: list[str], executor: str, arguments: argparse.Namespace, **variables: str) -> float:
    """Return the seconds that a command takes besides its trials."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "--task": "digits",
            "--policy": "uniform",
            "--seeds": f"0-{arguments.trials - 1}",
            "--updates": arguments.updates,
            "--executor": executor,
            "--workers": 2 if executor == "process" else 1,
            "--out": folder,
        }
        command = [sys.executable, *program, "run", "--quiet", *(str(part) for option in options.items() for part in option)]
        started = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        return wall - sum(float(record["wall_s"]) for record in records.read(Path(folder)))


if __name__ == "__main__":
    main()
