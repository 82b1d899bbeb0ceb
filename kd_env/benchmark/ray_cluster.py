"""Connect to a Ray cluster and collect the results of tasks. ``RAY_ADDRESS`` names the cluster; without it, Ray starts on this machine.

All nodes need the folder of the command, the results folder, the cache (``KD_ENV_CACHE``) and the task's data under the same paths, as on
a shared file system.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.interrupts import raise_if_interrupted

RETRIES = 3
"""Times that a task is run again after its worker or its node died."""
POLL = 1.0
"""Seconds between two checks for Ctrl-C while tasks run."""


@contextmanager
def ray_cluster(workers: int) -> Iterator[Any]:
    """Connect to a cluster for the block, unless this process is connected already, and yield the package ``ray``.

    Args:
        workers: processors of a Ray that is started here; a cluster that is there already uses what it has.

    Raises:
        InputError: Ray is not installed, or cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray: the package ray is not installed; install kd-env[ray], or use another executor") from None
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, os.environ.get("RAY_ADDRESS"), workers)
    load_early(ray, workers)
    try:
        yield ray
    finally:
        ray.shutdown()


def enter(folder: Path) -> None:
    """Make ``folder``, in which the command runs, the current folder of this worker. So it reads the same files and plug-ins.

    Raises:
        InputError: this node has no such folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"--executor ray: node {socket.gethostname()} cannot enter {folder}, in which the command runs ({error.strerror}); "
            "run the command in a folder that all nodes share"
        ) from None
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def check_gpus(ray: Any, option: str, gpus: float, say: Callable[[str], None]) -> None:
    """Check that a node has as many GPUs as a task reserves. On a cluster, which may grow, only say that tasks wait for such a node.

    Args:
        option: name of the option that asks for them.
        gpus: GPUs of a task.
        say: called with the line.

    Raises:
        InputError: ``gpus`` is above 1 and not whole, or Ray was started here and this machine has fewer.
    """
    if gpus > 1 and gpus % 1 != 0:
        raise InputError(f"{option} {gpus:g}: expected a part of one GPU, or a whole number")
    most = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if gpus <= most:
        return
    message = f"{option} {gpus:g}: no node of Ray has more than {most:g} GPUs"
    if not os.environ.get("RAY_ADDRESS"):
        raise InputError(f"{message}; {f'give at most {most:g}, or ' if most else ''}leave it out")
    say(f"{message}; tasks wait until a node with enough of them joins")


def load_early(ray: Any, most: int, tasks: Sequence[str] = ()) -> None:
    """Begin to load the libraries and the data of ``tasks`` in up to ``most`` workers, while this process prepares something else."""
    load = ray.remote(num_cpus=1)(_load)
    for _ in range(min(most, int(ray.cluster_resources().get("CPU", 1)))):
        load.remote(Path.cwd(), tasks)


def _load(folder: Path, tasks: Sequence[str]) -> None:
    """Load what trials need, in a worker. Errors are left to the trials."""
    enter(folder)
    import torch._dynamo  # noqa: F401 (torch loads it for its first optimizer)

    from kd_env.benchmark import shared_trials  # noqa: F401 (it loads all modules that every trial needs)
    from kd_env.tasks import load

    for task in tasks:
        load(task)


def results(
    ray: Any, tasks: Iterable[Any], at_once: int, lost_error: Callable[[str], Exception], poll: Callable[[], None]
) -> Iterator[Any]:
    """Yield the results of tasks as they come. Tasks that are left when the iterator is closed are cancelled.

    Args:
        tasks: references to tasks; submitted when they are taken from it.
        at_once: number of tasks that are submitted and not finished.
        lost_error: returns the error to raise if the worker of a task died too often; it is called with the reason.
        poll: called about every second.

    Raises:
        Exception: what a task raised.
    """
    tasks, waiting = iter(tasks), list[Any]()
    try:
        while waiting := [*waiting, *islice(tasks, at_once - len(waiting))]:
            ready, waiting = ray.wait(waiting, timeout=POLL)
            poll()
            raise_if_interrupted()
            for reference in ready:
                yield _result(ray, reference, lost_error)
    finally:
        for reference in waiting if ray.is_initialized() else ():
            ray.cancel(reference)  # a trial saves its state then


def _result(ray: Any, reference: Any, lost_error: Callable[[str], Exception]) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().split("\n")[0]
        raise lost_error(f"a worker died more than {RETRIES} times ({reason})") from None


_shared: dict[str, Any] = {}


def shared(reference: Any) -> Any:
    """Return the object of a reference, in a worker. The worker keeps the last one, so that its next task does not load it again.

    Args:
        reference: reference to an object. A task takes it within a list, as otherwise Ray passes the object itself.
    """
    import ray

    if reference.hex() not in _shared:
        value = ray.get(reference)
        _shared.clear()
        _shared[reference.hex()] = value
    return _shared[reference.hex()]


def _connect(ray: Any, address: str | None, workers: int) -> None:
    _require_reachable(address)
    paths = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])  # plug-ins are found as here
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    if "KD_ENV_CACHE" in os.environ:
        environment["KD_ENV_CACHE"] = os.environ["KD_ENV_CACHE"]
    options: dict[str, Any] = {"address": address, "runtime_env": {"env_vars": environment}}
    if not address:  # without a runtime environment, the workers that Ray starts at once are used
        options = {"num_cpus": workers, "include_dashboard": False}
    try:
        with nullcontext() if address else _with_variables(environment):
            ray.init(logging_level="ERROR", log_to_driver=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        if not address:
            raise InputError(f"--executor ray: Ray could not start on this machine ({reason}); use --executor process") from error
        raise InputError(f"--executor ray: no cluster at RAY_ADDRESS={address} ({reason}); start it, or unset RAY_ADDRESS") from error


@contextmanager
def _with_variables(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    outer = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in outer.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _require_reachable(address: str | None) -> None:
    """Refuse an address ``host:port`` that nothing listens at, for which Ray would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--executor ray: no cluster at RAY_ADDRESS={address} ({error}); start it, or unset RAY_ADDRESS") from None
