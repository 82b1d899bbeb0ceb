"""Check the parts of a suite before its first trial. In: a part. Out: an error of one line that names the part and the key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd_env import spec, tasks
from kd_env.benchmark.suite_parts import Part
from kd_env.envs.settings import settings as make_settings
from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.models.networks import begins_as_checkpoint, build
from kd_env.policies import registry
from kd_env.tasks import Task
from kd_env.teachers import POOLS
from kd_env.teachers.pools import require_task


def check(place: str, part: Part) -> None:
    """Look up everything that a part names.

    Raises:
        InputError: a name or a value is unknown; the message says in which key of the part.
    """
    with _naming(place, "task"):
        task = tasks.load(part.task)
    if part.teachers is not None:
        with _naming(place, "teachers"):
            check_pool(part.teachers, task)
    for name in part.policies:
        with _naming(place, "policies"):
            policy = registry.find(name)
            spec.require_options(f"policy {name!r}", policy.make, policy.options, None, 0)
        with _naming(place, "set"):
            distillation = make_settings(task, **part.settings_of(name)).distillation
            parse_terms(distillation.knowledge)
        with _naming(place, "student"):
            check_student(distillation.student, task)
    for trial in part.trials("check", [0], ""):
        with _naming(place, "policies"):
            _ = trial.resolved


def check_pool(text: str, task: Task) -> None:
    """Refuse a built-in pool of another task, or one that does not exist; other names are looked up when the teachers are loaded."""
    pool_of_teacher, kinds = text.rpartition("/")[0], {pool.split("/")[0] for pool in POOLS}
    is_plain = not any(character in text for character in ",:(") and not Path(text).expanduser().exists()
    if not text or (is_plain and text.split("/")[0] in kinds and not {text, pool_of_teacher} & POOLS.keys()):
        raise spec.unknown("pool", text, POOLS)
    if text in POOLS:
        require_task(text, task)


def check_student(text: str, task: Task) -> None:
    """Refuse a student that does not exist or cannot be built for the task. Checkpoints are looked up when they are loaded."""
    if not begins_as_checkpoint(text):
        build(text, task, 0)


@contextmanager
def _naming(place: str, key: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}, {key}: {error}") from None
