"""Print what executors cost: ``python -m speed.executors [--trials N] [--updates N]``.

The same trials run with each executor, with one worker, so that the work is the same, and in a new process, as a command does. The time
besides the trials is the wall time of the run minus what its trials took by their own records. Starting Ray and connecting to it are
measured apart. On a machine that is busy with something else, all numbers grow.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kd_env.benchmark import records
from kd_env.benchmark.process_executor import run_in_processes
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.ray_cluster import ray_cluster
from kd_env.benchmark.run import EXECUTORS, prepare, run
from kd_env.benchmark.trial import Trial


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m speed.executors", description="What executors cost, besides the trials.")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--only", choices=EXECUTORS, help="measure this one, in this process")
    arguments = parser.parse_args()
    trials = [Trial("digits", "uniform", seed, settings={"updates": arguments.updates}, test=False) for seed in range(arguments.trials)]
    if arguments.only:
        _measure(arguments.only, trials)
        return
    prepare(trials, Progress(quiet=True))  # the first bank is built here
    os.environ.pop("RAY_ADDRESS", None)
    for executor in EXECUTORS:
        _measure_in_new_process(executor)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        print("a cluster that runs already:", flush=True)
        _measure_in_new_process("ray", RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def _measure_in_new_process(executor: str, **variables: str) -> None:
    command = [sys.executable, "-m", "speed.executors", *sys.argv[1:], "--only", executor]
    subprocess.run(command, check=True, env={**os.environ, **variables})


def _measure(executor: str, trials: list[Trial]) -> None:
    with tempfile.TemporaryDirectory() as folder, patch("kd_env.benchmark.process_executor.run_in_processes", _with_one_worker):
        started = time.perf_counter()
        with ray_cluster(1) if executor == "ray" else nullcontext():
            connected = time.perf_counter()
            run(trials, folder, Progress(quiet=True), workers=2 if executor == "process" else 1, executor=executor)
            ended = time.perf_counter()
        left = time.perf_counter()
        trial_seconds = sum(record["wall_s"] for record in records.read(Path(folder)))
    of_ray = f", start or connect {connected - started:.1f} s, leave {left - ended:.1f} s" if executor == "ray" else ""
    wall = ended - connected
    print(f"{executor}: {wall:.1f} s, of which trials {trial_seconds:.1f} s, besides {wall - trial_seconds:.1f} s{of_ray}", flush=True)


def _with_one_worker(units: Any, checkpoints: Any, finished: Any, progress: Progress, _workers: int) -> None:
    run_in_processes(units, checkpoints, finished, progress, workers=1)


if __name__ == "__main__":
    main()
