"""Pools of one's own. In: ``pool.json`` or ``pool.toml``, a list ``teachers`` of tables, or a folder of checkpoints. Out: teachers.

A table has ``name`` and ``model``, and perhaps ``groups``, ``fraction``, ``epochs``, ``seed``, ``label_noise``, ``batch_size``, ``lr``,
``max_length``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.spec import unknown
from kd_env.tasks import Task
from kd_env.teachers import folded
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import Report, finetune
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.folded import FoldedTeacher
from kd_env.teachers.teacher import Teacher

LIST = "pool.json"
"""In a folder that was made from a pool file: the names of its teachers, in their order."""

_KINDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "groups": (list,),
    "fraction": (int, float),
    "epochs": (int,),
    "seed": (int,),
    "label_noise": (int, float),
    "batch_size": (int,),
    "lr": (int, float),
    "max_length": (int,),
}


def read(path: Path) -> dict[str, FinetuneConfig]:
    """The lessons of a pool file by the teachers' names.

    Raises:
        InputError: it cannot be read, or a table says something that a lesson does not know; it names the table.
    """
    try:
        text = path.read_text()
        said = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(f"pool file {path}: {error.strerror}; check the path") from None
    except ValueError as error:
        raise InputError(f"pool file {path}: {error}; mend it there") from None
    tables = said.get("teachers") if isinstance(said, dict) else None
    if not isinstance(tables, list) or not tables:
        raise InputError(f'pool file {path}: no list "teachers" in it; give it one table a teacher, with name and model')
    configs: dict[str, FinetuneConfig] = {}
    for number, table in enumerate(tables, start=1):
        place = f"pool file {path}, teacher {number}"
        name, config = _config(place, table)
        if name in configs:
            raise InputError(f"{place}: the name {name!r} is taken by another; names are folders, give it one of its own")
        configs[name] = config
    return configs


def teach(path: Path, task: Task, out: Path, report: Report | None = None) -> Path:
    """Make every teacher of the pool file in a folder of ``out``; what is finished is not made again.

    Raises:
        InputError: the file or one of its lessons cannot be used, or ``out`` holds other teachers, before anything is trained.
    """
    configs = read(path)
    if others := sorted(_checkpoints(out) - configs.keys()):
        raise InputError(f"{out} holds {', '.join(others)}, which {path} does not name; name another --out, so that a folder is one pool")
    for name, config in configs.items():
        try:
            config.filled(task)
        except InputError as error:
            raise InputError(f"pool file {path}, teacher {name!r}: {error}") from None
    for name, config in configs.items():
        finetune(task, config, out / name, report)
    (out / LIST).write_text(json.dumps({"teachers": list(configs)}))
    return out


def open_folder(folder: Path, task: Task) -> tuple[Teacher, ...]:
    """The teachers of a folder: one checkpoint, one of folds, or a folder of several in the order of their list, else of their names.

    Raises:
        InputError: there is none, or one of them cannot be used.
    """
    if (folder / folded.FILE).is_file():
        return (FoldedTeacher(folder, task),)
    if (folder / "config.json").is_file():
        return (CheckpointTeacher(str(folder), task),)
    inner = sorted(_checkpoints(folder))
    if not inner:
        raise InputError(f"{folder}: no config.json in it, nor in folders of it; name a checkpoint, or a folder that kd-env teach wrote")
    if (folder / LIST).is_file():
        try:
            listed = json.loads((folder / LIST).read_text())["teachers"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{folder / LIST}: no list of teachers; delete it, or run kd-env teach --pool again") from None
        if missing := [name for name in listed if name not in inner]:
            raise InputError(f"{folder}: teacher {missing[0]!r} of {LIST} is not there; run kd-env teach --pool again")
        if others := [name for name in inner if name not in listed]:
            raise InputError(f"{folder} holds {', '.join(others)}, which its {LIST} does not name; delete the list to use all")
        inner = listed
    return tuple(teacher for name in inner for teacher in open_folder(folder / name, task))


def _checkpoints(folder: Path) -> set[str]:
    """Names of the folders in ``folder`` that hold a teacher."""
    inner = folder.iterdir() if folder.is_dir() else ()
    return {path.name for path in inner if path.name[0] != "." and any((path / name).is_file() for name in ("config.json", folded.FILE))}


def best_for_group(teachers: Sequence[Teacher], task: Task) -> tuple[int, ...] | None:
    """Per group of ``task`` the teacher that was taught it, where each group was taught to exactly one and each teacher was taught groups.

    That is known by what ``kd-env teach`` wrote beside them, and says nothing about how good they are. ``None`` where a teacher was made
    otherwise, from all examples or from noisy labels, or where a group is taught twice, by nobody, or is none of the task's.
    """
    taught = [_groups_of(teacher) for teacher in teachers]
    if not all(taught) or sorted(group for groups in taught for group in groups) != sorted(task.group_names):
        return None
    return tuple(next(k for k, groups in enumerate(taught) if group in groups) for group in task.group_names)


def _groups_of(teacher: Teacher) -> frozenset[str]:
    """The groups it was taught, from true labels alone; none where that is not known."""
    folders = [teacher.folder] if isinstance(teacher, CheckpointTeacher) else teacher.folders if isinstance(teacher, FoldedTeacher) else []
    taught = set()
    for folder in folders:
        try:
            config = json.loads((folder / "teaching.json").read_text())
            taught.add(frozenset(map(str, config["groups"])) if config["label_noise"] == 0.0 else frozenset())
        except (OSError, ValueError, KeyError, TypeError):  # another program made it
            return frozenset()
    return taught.pop() if len(taught) == 1 else frozenset()


def _config(place: str, table: Any) -> tuple[str, FinetuneConfig]:
    if not isinstance(table, dict):
        raise InputError(f"{place}: a {type(table).__name__}, expected a table with name and model")
    for key in ("name", "model"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise InputError(f"{place}: {key}={table.get(key)!r}, expected a text; every teacher has a name and a model")
    name, values = table["name"], {key: value for key, value in table.items() if key != "name"}
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"{place}: name {name!r} cannot be a folder's; use letters, digits, - and _")
    for key, value in values.items():
        if key not in _KINDS:
            raise InputError(f"{place}: {unknown('key', key, ['name', *_KINDS])}")
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise InputError(f"{place}: {key}={value!r}, expected {_KINDS[key][-1].__name__}")
    if "groups" in values:
        values["groups"] = tuple(map(str, values["groups"]))
    assert set(values) <= {field.name for field in fields(FinetuneConfig)}
    return name, FinetuneConfig(**values)
