"""Load the pool that a text names: built-in pools, checkpoints, folders, pool files, heads of a teacher, and pools from your own code."""

from __future__ import annotations

from pathlib import Path

from kd_env import spec
from kd_env.errors import InputError
from kd_env.plugins import resolve
from kd_env.tasks import Task
from kd_env.teachers import faculty, heads, pool_files, pools
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.classes import parse_mapping
from kd_env.teachers.finetune import ProgressCallback
from kd_env.teachers.names import split_names
from kd_env.teachers.own import as_pool
from kd_env.teachers.pool_recipes import POOLS
from kd_env.teachers.teacher import Pool, Teacher


def load_pool(text: str, task: Task, progress: ProgressCallback | None = None) -> Pool:
    """Load the pool that ``text`` names.

    Args:
        text: ``module:function``, called with the task, which returns a pool or a list of teachers; or one or several, separated by commas,
            of: a built-in pool, a teacher of it (``POOL/NAME``), a checkpoint (a folder or a hub id) with or without a mapping of its
            classes, as ``PATH(classes=NEGATIVE=neg;POSITIVE=pos)``, a folder of several, a pool file, whose teachers are made once and
            cached, ``heads(TEACHER)``, the heads of a teacher, and ``faculty(CHECKPOINT)``, a checkpoint of other classes.
        task: the task.
        progress: called while the teachers of a built-in pool or of a pool file are made, which happens once.

    Raises:
        InputError: there is no such pool or teacher, it is for another task, or a checkpoint cannot be used.
    """
    items = split_names(text, _built_in_names(task))
    if (
        ":" in text
        and not any("," in item or split_options(item)[1] is not None for item in items)
        and not (heads.parse(text) or faculty.parse(text))
    ):
        return _from_module(text, task)
    if text in POOLS:
        return pools.built_in(text, task, progress)
    if not items:
        raise spec.unknown("pool", text, POOLS)
    prefixes, names = zip(*(item.rpartition("/")[::2] for item in items), strict=True)
    if len(set(prefixes)) == 1 and prefixes[0] in POOLS:
        return _select(pools.built_in(prefixes[0], task, progress), list(names))
    teachers = tuple(teacher for item in items for teacher in _teachers_of(item, task, progress))
    return Pool(text, teachers, pool_files.best_for_group(teachers, task))


def split_options(item: str) -> tuple[str, str | None]:
    """Split ``PATH(classes=...)`` into the path and the mapping; the mapping is ``None`` where there is none."""
    start = item.rfind("(classes=")
    if start <= 0 or not item.endswith(")") or Path(item).expanduser().exists():
        return item, None
    return item[:start], item[start + len("(classes=") : -1].strip("'\"")


def _from_module(text: str, task: Task) -> Pool:
    value = resolve(text, "pool")
    returned = spec.call_plugin(f"pool {text!r}", value, {}, task.development()) if callable(value) else value
    if not isinstance(returned, Pool | list | tuple):
        raise InputError(f"pool {text!r}: returned {type(returned).__name__}, expected a kd_env.teachers.Pool or a list of teachers")
    return as_pool(text, returned, task.development())


def _teachers_of(item: str, task: Task, progress: ProgressCallback | None) -> tuple[Teacher, ...]:
    """Return the teachers that one part of a pool's text names."""
    pool, _, name = item.rpartition("/")
    development = task.development()
    if (inner := heads.parse(item)) is not None:
        return heads.heads_of(load_pool(inner, task, progress).teachers, development)
    if (checkpoint := faculty.parse(item)) is not None:
        return (faculty.open_faculty(checkpoint, development),)
    if item in POOLS:
        return _without_drift(pools.built_in(item, task, progress)).teachers
    if pool in POOLS:
        return _select(_without_drift(pools.built_in(pool, task, progress)), [name]).teachers
    path, mapping = split_options(item)
    if mapping is not None:
        return (CheckpointTeacher(path, development, classes=parse_mapping(f"teacher {item!r}", mapping)),)
    place = Path(item).expanduser()
    if place.suffix in (".json", ".toml"):
        return pool_files.open_folder(pools.taught_from_file(place, development, progress), development)
    if place.is_dir():
        return pool_files.open_folder(place, development)
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


def _built_in_names(task: Task) -> set[str]:
    """Return the names of the teachers of built-in pools for ``task`` that hold commas or could be a part of such a name."""
    kinds = (task.name.split("(")[0], task.kind)
    return {
        f"{pool}/{name}"
        for pool, recipe in POOLS.items()
        if pool.split("/")[0] in kinds and recipe.expert is not None
        for name in task.group_names
    }
