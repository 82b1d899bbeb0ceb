"""``kd-env doctor``: what is installed, and what would go wrong."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from kd_env.cli.options import DataDir, GroupColumn, LabelColumn, MaxLength, PairColumn, TextColumn, named_task
from kd_env.errors import InputError
from kd_env.printable import one_line

PACKAGES = ("kd-env", "torch", "gymnasium", "stable-baselines3", "transformers", "datasets", "numpy", "pandas", "pyarrow", "safetensors")


class Findings(NamedTuple):
    """Lines about what was examined, and lines about problems, each with how to fix it."""

    facts: list[str]
    problems: list[str]


def doctor(
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Also load this task, its pool and its bank; they are made if need be.")
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
    checks = [_packages(), _device(), _cache(), _own_packages()]
    facts = [fact for findings in checks for fact in findings.facts] + (_task(task) if task else [])
    problems = [problem for findings in checks for problem in findings.problems]
    print("\n".join(one_line(line) for line in [*facts, *(f"PROBLEM: {problem}" for problem in problems)]))
    raise typer.Exit(1 if problems else 0)


def _packages() -> Findings:
    findings = Findings([], [])
    for name in PACKAGES:
        try:
            findings.facts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            findings.problems.append(f"{name} is not installed; run: pip install -c constraints.txt -e .")
    return findings


def _device() -> Findings:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, students run on the CPU"
    threads = f"cores: {os.cpu_count()}; torch threads: {torch.get_num_threads()} (trials use one each)"
    return Findings([f"CUDA device: {device}", threads], [])


def _cache() -> Findings:
    from kd_env.paths import cache_dir

    cache = cache_dir()
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.exists() else 0
    fact = f"cache: {cache}, {size / 1e6:.1f} MB (set KD_ENV_CACHE to move it; it can be deleted, its files are made again)"
    existing = cache if cache.exists() else next(parent for parent in cache.parents if parent.exists())
    if os.access(existing, os.W_OK):
        return Findings([fact], [])
    return Findings([fact], [f"cache {cache} cannot be written; set KD_ENV_CACHE to a folder that you can write to"])


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


def _task(name: str) -> list[str]:
    """Load the task with its default pool and bank, and return lines about them."""
    from kd_env import tasks
    from kd_env.bank.bank import open_bank
    from kd_env.tasks.task import SPLITS
    from kd_env.teachers import load_pool

    task = tasks.load(name)
    pool = load_pool(task.defaults.pool, task)
    bank = open_bank(task, pool)
    sizes = ", ".join(f"{split} {len(getattr(task, split))}" for split in SPLITS)
    return [
        f"task {task.name}: {task.kind}, {task.num_classes} classes, {sizes}; groups: {', '.join(task.group_names) or 'none'}",
        *(f"task {task.name}: {note}" for note in task.notes),
        f"pool {pool.name}: {', '.join(pool.names)}",
        f"bank: {bank.directory}",
    ]
