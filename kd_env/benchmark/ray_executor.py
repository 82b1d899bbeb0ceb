"""Run units of trials on a Ray cluster. In: units. Out: all of them are finished, although nodes may be lost.

Workers write their records and checkpoints themselves, so a trial whose node is lost continues on another from its checkpoint. Banks are
built once, before the first trial, and shared by the cache.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kd_env.benchmark import records
from kd_env.benchmark.checkpoints import CheckpointSettings
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.ray_cluster import RETRIES, enter, results, shared
from kd_env.benchmark.shared_trials import Unit, UnitResult, run_all, run_unit
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.interrupts import remember_interrupts
from kd_env.randomness import make_reproducible


def run_with_ray(
    ray: Any,
    units: Sequence[Unit],
    checkpoints: CheckpointSettings,
    finished: records.FinishedTrials,
    progress: Progress,
    gpus_per_trial: float = 0.0,
) -> None:
    """Run units as Ray tasks.

    Args:
        ray: the package, connected to a cluster.
        units: the units.
        checkpoints: where and how often trials are saved.
        finished: the finished trials of the folder.
        progress: shows finished trials, and the updates and messages of others.
        gpus_per_trial: part of a GPU that is reserved for a unit.

    Raises:
        InputError: the workers of a trial died too often.
    """
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    channel = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})  # it must not be lost with another node
    directory, folder = checkpoints.directory.absolute(), Path.cwd()
    task = ray.remote(num_cpus=1, num_gpus=gpus_per_trial, max_retries=RETRIES)(_work)
    finished_there = [ray.put(finished)]

    def submit(units: Sequence[Unit]) -> Iterator[UnitResult]:
        tasks = (
            task.remote(unit, [_content(trial) for trial in unit], folder, directory, checkpoints.minutes, finished_there, channel)
            for unit in units
        )
        return results(ray, tasks, len(units), _lost, lambda: _show(channel, progress))

    try:
        run_all(units, submit, progress)
        _show(channel, progress)
    finally:
        channel.shutdown()


def _lost(reason: str) -> InputError:
    return InputError(f"--executor ray: {reason}; finished trials are kept")


def _show(channel: Any, progress: Progress) -> None:
    """Show the messages that workers sent: texts, and the updates of their trials."""
    for message in channel.get_nowait_batch(channel.qsize()):
        if isinstance(message, str):
            progress.say(message)
        else:
            progress.advance(*message)


def _content(trial: Trial) -> str:
    """Return the id of a trial and the hash of its test split: the data on which its result depends."""
    return f"{trial.id} {trial.resolved.task.test_fingerprint if trial.test else ''}".rstrip()


def _work(
    unit: Unit, expected: Sequence[str], folder: Path, directory: Path, minutes: float, finished: Sequence[Any], channel: Any
) -> UnitResult:
    """Run a unit in a worker.

    Args:
        expected: :func:`_content` of its trials where the command runs.
        folder: the folder in which the command runs.

    Raises:
        InputError: this node has no such folder, or other files in it.
    """
    enter(folder)
    for trial, content in zip(unit, expected, strict=True):
        if _content(trial) != content:
            raise InputError(
                f"--executor ray: node {socket.gethostname()} reads other files than the machine of the command for task {trial.task!r}, "
                f"its teachers or its student (trial {_content(trial)}, expected {content}); all nodes need the same files"
            )
    make_reproducible()
    checkpoints = CheckpointSettings(directory, minutes, channel.put)
    with remember_interrupts():
        return run_unit(unit, checkpoints, shared(finished[0]), lambda trial: None)
