"""Find the best teacher of each example, where it is known from how the pool was made."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers.teacher import Drift, Pool


class KnownAnswer(Protocol):
    """What a pool, or the recipe of a built-in pool, says of its best teachers; see :class:`~kd_env.teachers.teacher.Pool`."""

    @property
    def best_for_group(self) -> tuple[int, ...] | None:
        """The best teacher of each group."""
        ...

    @property
    def best_for_class(self) -> tuple[int, ...] | None:
        """The best teacher of each class."""
        ...

    @property
    def drift(self) -> Drift | None:
        """The change during a run."""
        ...


def best_teachers(pool: KnownAnswer, task: Task, progress: float = 0.0) -> np.ndarray | None:
    """Return the best teacher of each training example, ``[N]``; ``None`` where it is not known.

    Args:
        progress: part of a student's updates that is done; the answer changes where the pool's drift does.

    Raises:
        InputError: the best teacher depends on the class or on the group of an example, and some examples have none, or the pool names
            no best teacher of some.
    """
    split = task.train
    if pool.best_for_class is not None:
        best, keys, key = pool.best_for_class, split.labels, "label"
    elif pool.best_for_group is not None and split.groups is not None:
        best, keys, key = pool.best_for_group, split.groups, "group"
    else:
        return None
    if keys.min() < 0:
        raise InputError(f"unlabelled examples of task {task.name!r} have no {key}; give them one")
    if keys.max() >= len(best):
        raise InputError(f"the pool names the best teacher of {len(best)} {key}s, and task {task.name!r} has at least {keys.max() + 1}")
    roles: np.ndarray = np.array(best)[keys]
    if pool.drift is None or progress < pool.drift.at:
        return roles
    teachers: np.ndarray = np.argsort(pool.drift.roles)[roles]  # the teacher that has the role now
    return teachers


def known_best_teachers(pool: Pool, task: Task, progress: float = 0.0) -> np.ndarray:
    """Return :func:`best_teachers` of a pool that must have a known answer.

    Raises:
        InputError: the answer is not known; and anything in :func:`best_teachers`.
    """
    best = best_teachers(pool, task, progress)
    if best is None:
        raise InputError(f"the best teachers of pool {pool.name!r} are not known; use another pool")
    return best
