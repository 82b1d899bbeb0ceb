"""Pools by name: recipes, each teacher trained once in seconds and cached, and checkpoints. In: names, and a task. Out: a :class:`Pool`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.paths import cache_dir
from kd_env.plugins import resolve
from kd_env.tasks import Task
from kd_env.teachers import heads, pool_files
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import model_content
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher
from kd_env.teachers.train import TeacherRecipe, fit


@dataclass(frozen=True)
class PoolRecipe:
    """What a pool is for, and how its teachers are made.

    Attributes:
        expert: made once for each group of the task, from that group alone; in place of ``teachers``.
        expert_is_best: each expert is known by construction to be its group's best teacher.
        examples: if not 0, a teacher is trained on about this many at most: on fewer epochs, and on a part of a larger split.
    """

    about: str
    teachers: tuple[TeacherRecipe, ...] = ()
    best_for_group: tuple[int, ...] | None = None
    expert: TeacherRecipe | None = None
    expert_is_best: bool = True
    examples: int = 0

    def fitted(self, task: Task) -> PoolRecipe:
        """The recipe with its teachers written out for ``task``."""
        labelled = task.train.take(task.train.labelled)
        if self.expert is None:
            return PoolRecipe(self.about, tuple(self._shortened(one, len(labelled)) for one in self.teachers), self.best_for_group)
        sizes = np.bincount(labelled.groups) if labelled.groups is not None else ()
        experts = tuple(
            self._shortened(replace(self.expert, name=group, groups=(group,), seed=k), int(sizes[k]))
            for k, group in enumerate(task.group_names)
        )
        return PoolRecipe(self.about, experts, tuple(range(len(experts))) if self.expert_is_best else None)

    def _shortened(self, recipe: TeacherRecipe, size: int) -> TeacherRecipe:
        if not self.examples:
            return recipe
        epochs = min(recipe.epochs, max(self.examples // size, 1))
        return replace(recipe, epochs=epochs, fraction=min(recipe.fraction, self.examples / size))


POOLS = {
    "digits/experts": PoolRecipe(
        "one expert a domain, confidently wrong in the others",
        expert=TeacherRecipe("expert", "mlp(width=128)"),
    ),
    "digits/mixed": PoolRecipe(
        "good, weak, label-noise and overconfident teachers of all domains",
        (
            TeacherRecipe("good", "mlp(width=256)", seed=0),
            TeacherRecipe("weak", "mlp(width=16)", epochs=2, seed=1),
            TeacherRecipe("label-noise", "mlp(width=256)", label_noise=0.4, seed=2),
            TeacherRecipe("overconfident", "mlp(width=128)", fraction=0.08, logit_scale=8.0, seed=3),
        ),
        best_for_group=(0, 0, 0, 0),
    ),
    "digits/capacity": PoolRecipe(
        "the most accurate teacher is not the best one for a small student: its soft labels mislead below the top class",
        (
            TeacherRecipe("misleading", "mlp(width=512)", next_class=0.2, epochs=60, seed=0),
            TeacherRecipe("overconfident", "mlp(width=256)", logit_scale=20.0, fraction=0.2, seed=1),
            TeacherRecipe("modest", "mlp(width=64)", epochs=12, seed=2),
        ),
    ),
    "domains/experts": PoolRecipe(
        "one expert a domain of the generated text, confidently wrong in the others",
        expert=TeacherRecipe("expert", "tiny-bert(width=48,layers=1,dropout=0)", epochs=8),
    ),
    "text/sizes": PoolRecipe(
        "for any text task: three small transformers of growing size, trained from nothing",
        (
            TeacherRecipe("small", "tiny-bert(width=32,layers=1)", epochs=20, seed=0),
            TeacherRecipe("medium", "tiny-bert(width=64,layers=2)", epochs=20, seed=1),
            TeacherRecipe("large", "tiny-bert(width=96,layers=2)", epochs=20, seed=2),
        ),
        examples=20_000,
    ),
    "text/experts": PoolRecipe(
        "for any text task with groups: a small transformer a group, trained from nothing",
        expert=TeacherRecipe("expert", "tiny-bert(width=64,layers=1)", epochs=20),
        expert_is_best=False,
        examples=20_000,
    ),
    "image/sizes": PoolRecipe(
        "for any image task: three networks of growing width",
        (
            TeacherRecipe("small", "mlp(width=32)", epochs=20, seed=0),
            TeacherRecipe("medium", "mlp(width=128)", epochs=20, seed=1),
            TeacherRecipe("large", "mlp(width=512)", epochs=20, seed=2),
        ),
        examples=400_000,
    ),
}
"""A pool is of the task, or of any task of the kind, that its name begins with."""


def load_pool(text: str, task: Task) -> Pool:
    """Load what ``text`` names.

    ``module:function``, called with the task, or one or several, with commas between, of: a pool, a teacher of it (``POOL/NAME``), a
    checkpoint (a folder or a hub id), a folder of several, a pool file, whose teachers are made once and kept in the cache, and the heads
    of a teacher, ``heads(TEACHER)``.

    Raises:
        InputError: no such pool or teacher, one made for another task, or a checkpoint that cannot be used.
    """
    if ":" in text and heads.inner(text) is None:
        made = resolve(text, "pool")
        pool = spec.call_plugin(f"pool {text!r}", made, {}, task.development()) if callable(made) else made
        if not isinstance(pool, Pool):
            raise InputError(f"pool {text!r}: returned {type(pool).__name__}, expected a kd_env.teachers.Pool")
        return pool
    if text in POOLS:
        return _trained(text, task)
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise spec.unknown("pool", text, POOLS)
    pools, names = zip(*(item.rpartition("/")[::2] for item in items), strict=True)
    if len(set(pools)) == 1 and pools[0] in POOLS:
        return _chosen(_trained(pools[0], task), list(names))
    teachers = tuple(teacher for item in items for teacher in _named(item, task))
    return Pool(text, teachers, pool_files.best_for_group(teachers, task))


def _named(item: str, task: Task) -> tuple[Teacher, ...]:
    pool, _, name = item.rpartition("/")
    if (inner := heads.inner(item)) is not None:
        return heads.heads_of(load_pool(inner, task).teachers, task.development())
    if item in POOLS:
        return _trained(item, task).teachers
    if pool in POOLS:
        return _chosen(_trained(pool, task), [name]).teachers
    path, development = Path(item).expanduser(), task.development()
    if path.suffix in (".json", ".toml"):
        return pool_files.open_folder(_taught(path, development), development)
    if path.is_dir():
        return pool_files.open_folder(path, development)
    if "/" not in item or item.split("/")[0] in {one.split("/")[0] for one in POOLS}:
        raise spec.unknown("pool", item, POOLS, " (there is no folder of that name either)")
    return (CheckpointTeacher(item, development),)


def _chosen(pool: Pool, names: list[str]) -> Pool:
    for name in names:
        if name not in pool.names:
            raise spec.unknown(f"teacher of {pool.name}", name, pool.names)
    return pool.select(names)


def _taught(path: Path, task: Task) -> Path:
    configs = pool_files.read(path)
    contents = [model_content(config) for config in configs.values()]
    key = hashlib.sha256(f"{configs}|{contents}|{task.fingerprint}".encode()).hexdigest()[:16]
    folder = cache_dir() / "teachers" / f"{_plain(path.stem)}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        return pool_files.teach(path, task, folder)


def _trained(name: str, task: Task) -> Pool:
    fits = (task.name.split("(")[0], task.kind)
    if name.split("/")[0] not in fits:
        made_for = ", ".join(pool for pool in POOLS if pool.split("/")[0] in fits) or "none built in"
        raise InputError(f"pool {name!r} was made for another task than {task.name!r}; pools for it: {made_for}")
    recipe = POOLS[name].fitted(task)
    if not recipe.teachers:
        raise InputError(f"pool {name!r} has a teacher a group and task {task.name!r} has no groups; use {task.kind}/sizes")
    task = task.development()  # a teacher is in reach of policies, and test must not be
    teachers = tuple(NetworkTeacher(one.name, _cached(one, task), task, one.logit_scale) for one in recipe.teachers)
    return Pool(name, teachers, recipe.best_for_group)


def _cached(recipe: TeacherRecipe, task: Task) -> nn.Module:
    key = hashlib.sha256(f"{recipe}|{task.fingerprint}".encode()).hexdigest()[:16]
    path = cache_dir() / "teachers" / f"{_plain(task.name.split('(')[0])}-{_plain(recipe.name)}-{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        network = build(recipe.network, task, recipe.seed)
        if not _load(network, path):
            network = fit(recipe, task)
            partial = path.with_suffix(".partial")
            save_file(network.state_dict(), partial)
            partial.replace(path)
    return network.eval()


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[-60:]


def _load(network: nn.Module, path: Path) -> bool:
    try:
        network.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError, RuntimeError):  # not there yet, or damaged: train it (again)
        return False
    return True
