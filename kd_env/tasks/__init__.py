"""Tasks: one file a source. ``load("digits")`` gives a :class:`~kd_env.tasks.task.Task`."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.task import Defaults, Split, Task

__all__ = ["TASKS", "Defaults", "Split", "Task", "load"]

TASKS = {"digits": "kd_env.tasks.digits:load", "domains": "kd_env.tasks.domains:load"}


@lru_cache(maxsize=8)
def load(text: str) -> Task:
    """Load a built-in task, or ``module:function`` of one's own, with options as ``domains(difficulty=0.3)``.

    Raises:
        InputError: no such task, or options it does not take.
    """
    name, options = spec.parse(text)
    if name not in TASKS and ":" not in name:
        raise spec.unknown("task", name, TASKS)
    task = spec.call_plugin(f"task {text!r}", resolve(TASKS.get(name, name), "task"), options)
    if not isinstance(task, Task):
        raise InputError(f"task {text!r}: returned {type(task).__name__}, expected a kd_env.tasks.Task")
    order = np.random.default_rng(0).permutation(len(task.train))  # a row number, which a policy is told, must not tell label or group
    return replace(task, train=task.train.take(order))


def resolve(path: str, kind: str) -> Any:
    """The object behind ``module:name``; an input error where there is none."""
    try:
        return pkgutil.resolve_name(path)
    except Exception as error:  # a module may raise anything while it is imported
        raise InputError(
            f"{kind} {path!r} cannot be imported ({type(error).__name__}: {error}); give module:name, importable from here"
        ) from None
