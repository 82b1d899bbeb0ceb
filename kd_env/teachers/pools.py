"""Train the teachers of pools once, and cache them: built-in pools, and those of a pool file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from torch import nn

from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.paths import cache_dir, locked
from kd_env.serialization import read_tensors, write_tensors
from kd_env.tasks import Task
from kd_env.teachers import pool_files
from kd_env.teachers.erring import ErringTeacher
from kd_env.teachers.finetune import ProgressCallback, model_content
from kd_env.teachers.pool_recipes import POOLS
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher
from kd_env.teachers.train_recipe import TeacherRecipe, train_network


def taught_from_file(path: Path, task: Task, progress: ProgressCallback | None = None) -> Path:
    """Fine-tune the teachers of a pool file into a folder of the cache, and return the folder."""
    configs = pool_files.read(path)
    contents = [model_content(config) for config in configs.values()]
    key = hashlib.sha256(f"{configs}|{contents}|{task.fingerprint}".encode()).hexdigest()[:16]
    folder = cache_dir() / "teachers" / f"{_file_name(path.stem)}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        return pool_files.teach(path, task, folder, progress)


def built_in(name: str, task: Task, progress: ProgressCallback | None = None) -> Pool:
    """Return a built-in pool; ``progress`` is called while its teachers are trained.

    Raises:
        InputError: it is for another task, or the task has no groups and the pool has one teacher for each.
    """
    require_task(name, task)
    recipe = POOLS[name].fitted(task)
    if not recipe.teachers:
        raise InputError(f"pool {name!r} has one teacher for each group and task {task.name!r} has no groups; use {task.kind}/sizes")
    task = task.development()  # policies can reach a teacher, and must not reach test
    return Pool(
        name,
        tuple(_made(teacher, task, progress) for teacher in recipe.teachers),
        recipe.best_for_group,
        recipe.best_for_class,
        recipe.drift,
    )


def _made(recipe: TeacherRecipe, task: Task, progress: ProgressCallback | None) -> Teacher:
    teacher = NetworkTeacher(recipe.name, _load_or_train(recipe, task, progress), task, recipe.logit_scale)
    return teacher if recipe.errors is None else ErringTeacher(teacher, recipe.errors, task.num_classes)


def _load_or_train(recipe: TeacherRecipe, task: Task, progress: ProgressCallback | None) -> nn.Module:
    report = (lambda done, total: progress(f"teacher {recipe.name}", done, total, "")) if progress else None
    key = hashlib.sha256(f"{recipe}|{task.fingerprint}".encode()).hexdigest()[:16]
    path = cache_dir() / "teachers" / f"{_file_name(task.name.split('(')[0])}-{_file_name(recipe.name)}-{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        network = build(recipe.network, task, recipe.seed)
        if not _load_weights(network, path):
            network = train_network(recipe, task, report)
            write_tensors(path, network.state_dict())
    return network.eval()


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[-60:]


def _load_weights(network: nn.Module, path: Path) -> bool:
    """Load the weights and return whether that was possible."""
    weights = read_tensors(path)
    if weights is None:
        return False
    try:
        network.load_state_dict(weights)
    except RuntimeError:  # of another network
        return False
    return True


def require_task(name: str, task: Task) -> None:
    """Check that a built-in pool is for a task.

    Raises:
        InputError: it is for another one.
    """
    task_names = (task.name.split("(")[0], task.kind)
    if name.split("/")[0] not in task_names:
        suitable = ", ".join(pool for pool in POOLS if pool.split("/")[0] in task_names) or "none built in"
        raise InputError(f"pool {name!r} is for another task than {task.name!r}; pools for it: {suitable}")
