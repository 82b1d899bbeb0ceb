"""Run units of trials on a Ray cluster. In: units. Out: all of them are finished, although nodes may be lost.

``RAY_ADDRESS`` names the cluster; without it, Ray starts on this machine. All nodes need the results folder, the cache (``KD_ENV_CACHE``)
and the task's data under the same paths, as on a shared file system: workers write their records and checkpoints themselves, so a trial
whose node is lost continues on another from its checkpoint. Banks are built once, before the first trial, and shared by the cache.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from kd_env.benchmark import records
from kd_env.benchmark.checkpoints import CheckpointSettings
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.shared_trials import Unit, UnitResult, run_all, run_unit
from kd_env.errors import InputError
from kd_env.interrupts import raise_if_interrupted, remember_interrupts

RETRIES = 3
"""Times that a trial is run again after its worker or its node died."""
POLL = 1.0
"""Seconds between two looks at the messages of workers."""


def run_with_ray(
    units: Sequence[Unit],
    checkpoints: CheckpointSettings,
    progress: Progress,
    workers: int,
    gpus_per_trial: float = 0.0,
) -> None:
    """Run units as Ray tasks.

    Args:
        units: the units.
        checkpoints: where and how often trials are saved.
        progress: shows finished trials, and the updates and messages of others.
        workers: processors of a Ray that is started here; a cluster that is there already uses what it has.
        gpus_per_trial: part of a GPU that is reserved for a unit.

    Raises:
        InputError: Ray is not installed, cannot be reached, or lost the workers of a trial too often.
    """
    try:
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError:
        raise InputError("--executor ray: the package ray is not installed; install kd-env[ray], or use --executor process") from None
    address = os.environ.get("RAY_ADDRESS")
    started = not ray.is_initialized()
    if started:
        _connect(ray, address, workers)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    channel = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})  # it must not be lost with another node
    directory = checkpoints.directory.absolute()
    task = ray.remote(num_cpus=1, num_gpus=gpus_per_trial, max_retries=RETRIES)(_work)

    def submit(units: Sequence[Unit]) -> Iterator[UnitResult]:
        waiting = [task.remote(unit, directory, checkpoints.minutes, channel) for unit in units]
        try:
            while waiting:
                ready, waiting = ray.wait(waiting, timeout=POLL)
                _show(channel, progress)
                raise_if_interrupted()
                for reference in ready:
                    yield _result(ray, reference)
        finally:
            for reference in waiting:  # of a run that is stopped: each saves its trial
                ray.cancel(reference)

    try:
        run_all(units, submit, progress)
        _show(channel, progress)
    finally:
        channel.shutdown()
        if started:
            ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int) -> None:
    _require_reachable(address)
    paths = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])  # plug-ins are found as here
    environment = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}
    options: dict[str, Any] = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(runtime_env=environment, logging_level="ERROR", log_to_driver=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"--executor ray: no cluster at RAY_ADDRESS={address} ({reason}); start it, or unset RAY_ADDRESS") from error


def _require_reachable(address: str | None) -> None:
    """Refuse an address ``host:port`` that nothing listens at, for which Ray would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--executor ray: no cluster at RAY_ADDRESS={address} ({error}); start it, or unset RAY_ADDRESS") from None


def _result(ray: Any, reference: Any) -> UnitResult:
    try:
        result: UnitResult = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"--executor ray: a worker died more than {RETRIES} times ({reason}); finished trials are kept") from None
    return result


def _show(channel: Any, progress: Progress) -> None:
    """Show the messages that workers sent: texts, and the updates of their trials."""
    for message in channel.get_nowait_batch(channel.qsize()):
        if isinstance(message, str):
            progress.say(message)
        else:
            progress.advance(*message)


def _work(unit: Unit, directory: Path, minutes: float, channel: Any) -> UnitResult:
    """Run a unit in a worker."""
    sys.path.insert(0, os.getcwd())
    torch.set_num_threads(1)
    checkpoints = CheckpointSettings(directory, minutes, channel.put)
    with remember_interrupts():
        return run_unit(unit, checkpoints, records.FinishedTrials(directory), lambda trial: None)
