"""Run units of trials in processes of this machine. In: units. Out: all of them are finished; a worker that is killed is replaced."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from kd_env.benchmark import records
from kd_env.benchmark.checkpoints import CheckpointSettings
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run_trial import Report
from kd_env.benchmark.shared_trials import Unit, UnitResult, run_all, run_unit
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.worker_ends import TERMINATED, was_killed, worker_died
from kd_env.errors import InputError
from kd_env.interrupts import remember_interrupts
from kd_env.randomness import make_reproducible

PATIENCE = 60.0
"""Seconds in which a worker that is stopped must have saved its trial."""
PRELOADED = ["kd_env.benchmark.process_executor", "torch._dynamo"]
"""Modules that workers have when they start; the second is loaded by torch for its first optimizer."""
RETRIES = 2
"""Times that workers are replaced after one was killed."""


def run_in_processes(
    units: Sequence[Unit], checkpoints: CheckpointSettings, finished: records.FinishedTrials, progress: Progress, workers: int
) -> None:
    """Run units in ``workers`` processes.

    If a worker is killed, as the system does when memory is short, all are replaced, and the trials continue from their checkpoints.

    Raises:
        InputError: a worker was killed more than twice, or a worker ended by itself.
    """
    context = _context()
    retries = RETRIES

    def run_until_one_dies(waiting: list[Unit]) -> Iterator[UnitResult]:
        """Yield results and take their units out of ``waiting``; return early if a worker was killed."""
        nonlocal retries
        channel = context.Queue()  # not that of workers before: one that was killed within a message has locked it forever
        arguments = (dict(os.environ), channel, checkpoints.directory, checkpoints.minutes, finished)
        with (
            _listening(channel, progress),
            ProcessPoolExecutor(min(workers, len(waiting)), context, _start_worker, arguments) as pool,
        ):
            try:
                for future in as_completed([pool.submit(_work, unit) for unit in waiting]):
                    result = future.result()
                    waiting.remove(result.unit)
                    yield result
            except BrokenProcessPool:
                processes = list(pool._processes.values())
                pool.shutdown()  # ends the other workers
                exit_codes = [process.exitcode for process in processes]
                if not retries or not was_killed(exit_codes):
                    raise InputError(worker_died(exit_codes)) from None
                retries -= 1
                progress.say(f"{worker_died(exit_codes)}; new workers continue")
            except BaseException:
                _stop(list(pool._processes.values()))  # they would finish their trials and the next, though nobody waits for them
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def submit(units: Sequence[Unit]) -> Iterator[UnitResult]:
        waiting = list(units)
        while waiting:
            yield from run_until_one_dies(waiting)

    run_all(units, submit, progress)


def load_early() -> None:
    """Begin to load the libraries that workers need, in a process of its own. Call this before the preparations of a run."""
    if _context().get_start_method() == "forkserver":
        multiprocessing.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()


def _context() -> Any:
    """Return how workers start: on Linux as forks of a process that has loaded the libraries and does nothing else."""
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def _stop(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()  # each saves its trial first
    for process in processes:
        process.join(PATIENCE)
        process.kill()
        process.join()


_channel: Any = None
_shared: tuple[CheckpointSettings, records.FinishedTrials] | None = None


def _start_worker(environment: Mapping[str, str], channel: Any, directory: Path, minutes: float, finished: records.FinishedTrials) -> None:
    global _channel, _shared
    os.environ.update(environment)  # it may have changed since the libraries were loaded
    _channel, _shared = channel, (CheckpointSettings(directory, minutes, channel.put), finished)
    make_reproducible()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent process ends, since it would wait for its next trial forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(unit: Unit) -> UnitResult:
    def reporter(trial: Trial) -> Report:
        return lambda updates, validation: _channel.put((trial.policy, trial.seed, updates, validation))

    assert _shared is not None
    try:
        with remember_interrupts():
            return run_unit(unit, *_shared, reporter)
    except KeyboardInterrupt:
        os._exit(TERMINATED)  # an exception would be sent to the parent, and the worker would begin its next trial


@contextmanager
def _listening(channel: Any, progress: Progress) -> Iterator[None]:
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            try:
                message = channel.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(message, str):
                progress.say(message)
            else:
                progress.advance(*message)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1.0)  # not longer: a worker that was stopped within a message would block it
