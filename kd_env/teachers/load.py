"""Load the pool that a text names, where names may hold commas, checkpoints may have options, and a function may return a list."""

from __future__ import annotations

from pathlib import Path

from kd_env import spec
from kd_env.errors import InputError
from kd_env.plugins import resolve
from kd_env.tasks import Task
from kd_env.teachers import heads, pool_files, pools
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.classes import parse_mapping
from kd_env.teachers.names import split_names
from kd_env.teachers.own import as_pool
from kd_env.teachers.pool_recipes import POOLS
from kd_env.teachers.teacher import Pool, Teacher


def load_pool(text: str, task: Task) -> Pool:
    """Load the pool that ``text`` names.

    Args:
        text: as :func:`kd_env.teachers.pools.load_pool` reads it. Besides, a name of a built-in pool may hold commas, a checkpoint may have
            a mapping of its classes, as ``PATH(classes=NEGATIVE=neg;POSITIVE=pos)``, and a function may return a list of teachers.

    Raises:
        InputError: there is no such pool or teacher, it is for another task, or a checkpoint cannot be used.
    """
    items = split_names(text, _built_in_teachers(task))
    plain = not any("," in item or split_options(item)[1] is not None for item in items)
    if ":" in text and plain and heads.parse(text) is None:
        value = resolve(text, "pool")
        returned = spec.call_plugin(f"pool {text!r}", value, {}, task.development()) if callable(value) else value
        if not isinstance(returned, Pool | list | tuple):
            raise InputError(f"pool {text!r}: returned {type(returned).__name__}, expected a kd_env.teachers.Pool or a list of teachers")
        return as_pool(text, returned, task.development())
    if plain or len(items) == 0 or heads.parse(text) is not None:
        return pools.load_pool(text, task)
    places = [item.rpartition("/")[::2] if item in _built_in_teachers(task) else ("", "") for item in items]
    if len({pool for pool, _ in places}) == 1 and places[0][0]:
        return pools.load_pool(places[0][0], task).select([name for _, name in places])
    teachers = tuple(teacher for item in items for teacher in _teachers_of(item, task))
    return Pool(text, teachers, pool_files.best_for_group(teachers, task))


def split_options(item: str) -> tuple[str, str | None]:
    """Split ``PATH(classes=...)`` into the path and the mapping; the mapping is ``None`` where there is none."""
    start = item.rfind("(classes=")
    if start <= 0 or not item.endswith(")") or Path(item).expanduser().exists():
        return item, None
    return item[:start], item[start + len("(classes=") : -1].strip("'\"")


def _teachers_of(item: str, task: Task) -> tuple[Teacher, ...]:
    path, mapping = split_options(item)
    if mapping is not None:
        classes = parse_mapping(f"teacher {item!r}", mapping)
        return (CheckpointTeacher(path, task.development(), classes=classes),)
    pool, _, name = item.rpartition("/")
    if item in _built_in_teachers(task):
        return pools.load_pool(pool, task).select([name]).teachers
    return load_pool(item, task).teachers


def _built_in_teachers(task: Task) -> set[str]:
    """Return the names of the teachers of built-in pools for ``task`` that hold commas or could be a part of such a name."""
    kinds = (task.name.split("(")[0], task.kind)
    return {
        f"{pool}/{name}"
        for pool, recipe in POOLS.items()
        if pool.split("/")[0] in kinds and recipe.expert is not None
        for name in task.group_names
    }
