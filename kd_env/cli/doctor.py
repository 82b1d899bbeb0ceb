"""What ``kd-env doctor`` says: what is here, and what would go wrong. Out: lines, and problems with their mend."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kd_env.paths import cache_dir

PACKAGES = ("kd-env", "torch", "gymnasium", "stable-baselines3", "transformers", "datasets", "numpy", "pandas", "pyarrow", "safetensors")


def examine(task: str | None) -> tuple[list[str], list[str]]:
    """Facts and problems; ``task`` is loaded with its default pool and bank if given.

    Raises:
        InputError: ``task`` cannot be loaded.
    """
    facts, problems = [], []
    for name in PACKAGES:
        try:
            facts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            problems.append(f"{name} is not installed; run: pip install -c constraints.txt -e .")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, students run on the CPU"
    facts.append(f"CUDA device: {device}")
    facts.append(f"cores: {os.cpu_count()}; torch threads: {torch.get_num_threads()} (trials use one each)")
    cache = cache_dir()
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.exists() else 0
    facts.append(f"cache: {cache}, {size / 1e6:.1f} MB (set KD_ENV_CACHE to move it; delete it freely, it is made again)")
    home = Path(__file__).parents[2]
    for package in ("agents", "baselines"):
        found = importlib.util.find_spec(package)
        place = Path(found.origin).parent.parent if found and found.origin else None
        if place != home:
            problems.append(
                f"package {package!r} resolves to {place or 'nothing'}, expected {home}; another package of that name is in the way"
            )
        else:
            facts.append(f"package {package}: {place}")
    if not os.access(cache if cache.exists() else next(parent for parent in cache.parents if parent.exists()), os.W_OK):
        problems.append(f"cache {cache} cannot be written; set KD_ENV_CACHE to a folder of yours")
    if task:
        facts += _task(task)
    return facts, problems


def _task(name: str) -> list[str]:
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
