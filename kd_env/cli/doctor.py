"""``kd-env doctor``: what is installed, and what would go wrong."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from kd_env.cli.options import DataDir, GroupColumn, LabelColumn, MaxLength, PairColumn, TextColumn, named_task
from kd_env.errors import InputError
from kd_env.printable import one_line

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

INSTALL = "run: pip install -c constraints.txt -e ."
MIN_SPACE = 200_000_000
"""Bytes that the cache needs at least; the built-in pools and banks take about as much."""
NVIDIA = Path("/dev/nvidia0")
PACKAGES = ("kd-env", "torch", "gymnasium", "stable-baselines3", "transformers", "datasets", "numpy", "pandas", "pyarrow", "safetensors")


class Findings(NamedTuple):
    """Lines about what was examined, and lines about problems, each with how to fix it."""

    facts: list[str]
    problems: list[str]


def doctor(
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Also load this task, its pool and its bank; they are made if missing.")
    ] = None,
    data_dir: DataDir = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumn = None,
    group: GroupColumn = None,
    max_length: MaxLength = None,
) -> None:
    """Check the installation, the caches and, if given, a task.

    The exit status is 1 if there is a problem.
    """
    options = {"data-dir": data_dir, "text": text, "pair": pair, "label": label, "group": group, "max-length": max_length}
    for name, value in options.items():
        if value is not None and task is None:
            raise InputError(f"--{name} {value}: no task; give --task too")
    if task is not None:
        task = named_task(task, data_dir, text, pair, label, group, max_length)
    checks = [_packages(), _device(), _cache(), _temporary_files(), _own_packages(), *([_task(task)] if task else [])]
    facts = [fact for findings in checks for fact in findings.facts]
    problems = [problem for findings in checks for problem in findings.problems]
    print("\n".join(one_line(line) for line in [*facts, *(f"PROBLEM: {problem}" for problem in problems)]))
    raise typer.Exit(1 if problems else 0)


def _packages() -> Findings:
    from importlib.metadata import PackageNotFoundError, version

    findings, needed = Findings([], []), _requirements()
    for name in dict.fromkeys((*PACKAGES, *needed)):
        try:
            installed = version(name)
        except PackageNotFoundError:
            findings.problems.append(f"{name} is not installed; {INSTALL}")
            continue
        if name in PACKAGES:
            findings.facts.append(f"{name} {installed}")
        if name in needed and not needed[name].contains(installed, prereleases=True):
            findings.problems.append(f"{name} {installed} is installed, and kd-env needs {name} {needed[name]}; {INSTALL}")
    return findings


def _requirements() -> dict[str, SpecifierSet]:
    """Return the versions of other packages that kd-env needs, by name; none where kd-env itself is not installed."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        parsed = map(Requirement, requires("kd-env") or ())
    except PackageNotFoundError:
        return {}
    return {requirement.name: requirement.specifier for requirement in parsed if requirement.marker is None}


def _device() -> Findings:
    import torch

    problems = []
    device = "none, students run on the CPU"
    if torch.cuda.is_available():
        try:
            device = torch.cuda.get_device_name()
            torch.ones(1, device="cuda").add(1).cpu()
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or [""])[0]
            problems.append(f"CUDA does not compute ({reason}); install a torch that fits the driver, or use --set device=cpu")
    elif torch.version.cuda and NVIDIA.exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1"):
        problems.append(f"there is an NVIDIA device, and torch {torch.__version__} cannot use it; install a torch that fits the driver")
    threads = f"cores: {os.cpu_count()}; torch threads: {torch.get_num_threads()} (trials use one each)"
    return Findings([f"CUDA device: {device}", threads], problems)


def _cache() -> Findings:
    from kd_env.paths import cache_dir

    try:
        cache = cache_dir()
    except InputError as error:
        return Findings([], [str(error)])
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.exists() else 0
    fact = f"cache: {cache}, {size / 1e6:.1f} MB (set KD_ENV_CACHE to move it; it can be deleted, its files are made again)"
    try:
        _write_and_lock(cache)
    except OSError as error:
        problem = f"cache {cache} cannot be used ({error.strerror or error}); set KD_ENV_CACHE to a folder that you can write to"
        return Findings([fact], [problem])
    if (free := shutil.disk_usage(cache).free) < MIN_SPACE:
        return Findings([fact], [f"cache {cache} has {free / 1e6:.0f} MB of free space; free some, or set KD_ENV_CACHE to another disk"])
    return Findings([fact], [])


def _write_and_lock(folder: Path) -> None:
    """Write a file as a bank is written, and lock it as trials are.

    Raises:
        OSError: the folder cannot be written to, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _temporary_files() -> Findings:
    try:
        return Findings([f"temporary files: {tempfile.gettempdir()}"], [])
    except OSError:
        return Findings([], ["there is no folder for temporary files; set TMPDIR to one that you can write to"])


def _own_packages() -> Findings:
    """Check that the packages ``agents`` and ``baselines``, which are common names, are this project's."""
    findings, home = Findings([], []), Path(__file__).parents[2]
    for name in ("agents", "baselines"):
        module_spec = importlib.util.find_spec(name)
        place = Path(module_spec.origin).parent.parent if module_spec and module_spec.origin else None
        if place == home:
            findings.facts.append(f"package {name}: {place}")
        else:
            findings.problems.append(
                f"package {name!r} resolves to {place or 'nothing'}, expected {home}; "
                "another package of that name comes first on the path, remove or rename it"
            )
    return findings


def _task(name: str) -> Findings:
    """Load the task with its default pool and bank."""
    from kd_env import tasks
    from kd_env.bank.bank import open_bank
    from kd_env.benchmark.progress import Progress
    from kd_env.tasks.task import SPLITS
    from kd_env.teachers import load_pool

    try:
        task = tasks.load(name)
        with Progress() as progress:
            pool = load_pool(task.defaults.pool, task, progress.teaching)
            bank = open_bank(task, pool, progress=progress.bank)
    except InputError as error:
        return Findings([], [str(error)])
    sizes = ", ".join(f"{split} {len(getattr(task, split))}" for split in SPLITS if getattr(task, split) is not None)
    facts = [
        f"task {task.name}: {task.kind}, {task.num_classes} classes, {sizes}; groups: {', '.join(task.group_names) or 'none'}",
        *(f"task {task.name}: {note}" for note in task.notes),
        f"pool {pool.name}: {', '.join(pool.names)}",
        f"bank: {bank.directory}",
    ]
    return Findings(facts, [])
