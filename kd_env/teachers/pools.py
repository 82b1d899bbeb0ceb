"""Pools by name: built-in pools, whose teachers are trained once and cached, checkpoints, pool files, and pools from your own code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from torch import nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.paths import cache_dir, locked
from kd_env.plugins import resolve
from kd_env.serialization import read_tensors, write_tensors
from kd_env.tasks import Task
from kd_env.teachers import heads, pool_files
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.erring import ErringTeacher
from kd_env.teachers.finetune import model_content
from kd_env.teachers.pool_recipes import POOLS
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher
from kd_env.teachers.train_recipe import TeacherRecipe, train_network


def load_pool(text: str, task: Task) -> Pool:
    """Load the pool that ``text`` names.

    Args:
        text: ``module:function``, called with the task; or one or several, separated by commas, of: a built-in pool, a teacher of it
            (``POOL/NAME``), a checkpoint (a folder or a hub id), a folder of several, a pool file, whose teachers are made once and cached,
            and ``heads(TEACHER)``, the heads of a teacher.

    Raises:
        InputError: there is no such pool or teacher, it is for another task, or a checkpoint cannot be used.
    """
    if ":" in text and heads.parse(text) is None:
        return _from_module(text, task)
    if text in POOLS:
        return _built_in(text, task)
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise spec.unknown("pool", text, POOLS)
    pools, names = zip(*(item.rpartition("/")[::2] for item in items), strict=True)
    if len(set(pools)) == 1 and pools[0] in POOLS:
        return _select(_built_in(pools[0], task), list(names))
    teachers = tuple(teacher for item in items for teacher in _teachers_of(item, task))
    return Pool(text, teachers, pool_files.best_for_group(teachers, task))


def _from_module(text: str, task: Task) -> Pool:
    value = resolve(text, "pool")
    pool = spec.call_plugin(f"pool {text!r}", value, {}, task.development()) if callable(value) else value
    if not isinstance(pool, Pool):
        raise InputError(f"pool {text!r}: returned {type(pool).__name__}, expected a kd_env.teachers.Pool")
    return pool


def _teachers_of(item: str, task: Task) -> tuple[Teacher, ...]:
    """Return the teachers that one part of a pool's text names."""
    pool, _, name = item.rpartition("/")
    if (inner := heads.parse(item)) is not None:
        return heads.heads_of(load_pool(inner, task).teachers, task.development())
    if item in POOLS:
        return _without_drift(_built_in(item, task)).teachers
    if pool in POOLS:
        return _select(_without_drift(_built_in(pool, task)), [name]).teachers
    path, development = Path(item).expanduser(), task.development()
    if path.suffix in (".json", ".toml"):
        return pool_files.open_folder(_from_pool_file(path, development), development)
    if path.is_dir():
        return pool_files.open_folder(path, development)
    if "/" not in item or item.split("/")[0] in {built_in.split("/")[0] for built_in in POOLS}:
        raise spec.unknown("pool", item, POOLS, " (there is no folder of that name either)")
    return (CheckpointTeacher(item, development),)


def _without_drift(pool: Pool) -> Pool:
    if pool.drift is not None:
        raise InputError(f"pool {pool.name!r}: its teachers change during a run, together; name this pool alone")
    return pool


def _select(pool: Pool, names: list[str]) -> Pool:
    for name in names:
        if name not in pool.names:
            raise spec.unknown(f"teacher of {pool.name}", name, pool.names)
    return pool.select(names)


def _from_pool_file(path: Path, task: Task) -> Path:
    """Fine-tune the teachers of a pool file into a folder of the cache, and return the folder."""
    configs = pool_files.read(path)
    contents = [model_content(config) for config in configs.values()]
    key = hashlib.sha256(f"{configs}|{contents}|{task.fingerprint}".encode()).hexdigest()[:16]
    folder = cache_dir() / "teachers" / f"{_file_name(path.stem)}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        return pool_files.teach(path, task, folder)


def _built_in(name: str, task: Task) -> Pool:
    task_names = (task.name.split("(")[0], task.kind)
    if name.split("/")[0] not in task_names:
        suitable = ", ".join(pool for pool in POOLS if pool.split("/")[0] in task_names) or "none built in"
        raise InputError(f"pool {name!r} is for another task than {task.name!r}; pools for it: {suitable}")
    recipe = POOLS[name].fitted(task)
    if not recipe.teachers:
        raise InputError(f"pool {name!r} has one teacher for each group and task {task.name!r} has no groups; use {task.kind}/sizes")
    task = task.development()  # policies can reach a teacher, and must not reach test
    return Pool(
        name, tuple(_made(teacher, task) for teacher in recipe.teachers), recipe.best_for_group, recipe.best_for_class, recipe.drift
    )


def _made(recipe: TeacherRecipe, task: Task) -> Teacher:
    teacher = NetworkTeacher(recipe.name, _load_or_train(recipe, task), task, recipe.logit_scale)
    return teacher if recipe.errors is None else ErringTeacher(teacher, recipe.errors, task.num_classes)


def _load_or_train(recipe: TeacherRecipe, task: Task) -> nn.Module:
    key = hashlib.sha256(f"{recipe}|{task.fingerprint}".encode()).hexdigest()[:16]
    path = cache_dir() / "teachers" / f"{_file_name(task.name.split('(')[0])}-{_file_name(recipe.name)}-{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        network = build(recipe.network, task, recipe.seed)
        if not _load_weights(network, path):
            network = train_network(recipe, task)
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
