"""Load pools of the user: a pool file that says how teachers are fine-tuned, or a folder of checkpoints.

``pool.json`` or ``pool.toml`` holds a list ``teachers`` of tables. A table has ``name`` and ``model`` and may have ``groups``,
``fraction``, ``epochs``, ``seed``, ``label_noise``, ``batch_size``, ``by_length``, ``lr`` and ``max_length``. A table with ``classes``
instead, a mapping of the model's names of classes to the task's, is a classifier that is used as it is.
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
from kd_env.interrupts import CHECKPOINT_MINUTES
from kd_env.paths import require_file
from kd_env.spec import unknown
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.existing import REFERENCE_FILE, ExistingTeacher, open_reference
from kd_env.teachers.file_hashes import TEACHING_FILE
from kd_env.teachers.finetune import ProgressCallback, finetune
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.out_of_fold import FOLDS_FILE, OutOfFoldTeacher
from kd_env.teachers.teacher import Teacher

LIST_FILE = "pool.json"
"""In a folder that was made from a pool file: the names of its teachers, in their order."""

_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "groups": (list,),
    "fraction": (int, float),
    "epochs": (int,),
    "seed": (int,),
    "label_noise": (int, float),
    "batch_size": (int,),
    "by_length": (bool,),
    "lr": (int, float),
    "max_length": (int,),
}


def read(path: Path) -> dict[str, FinetuneConfig | ExistingTeacher]:
    """Return the configs of a pool file by the teachers' names.

    Raises:
        InputError: the file cannot be read, or a table cannot be used; it names the table.
    """
    require_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # it may begin with a byte order mark
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=_table)
    except OSError as error:
        raise InputError(f"pool file {path}: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"pool file {path}: {error}; fix it there") from None
    tables = content.get("teachers") if isinstance(content, dict) else None
    if not isinstance(tables, list) or not tables:
        raise InputError(f'pool file {path}: no list "teachers" in it; give it one table per teacher, with name and model')
    if others := [key for key in content if key != "teachers"]:
        raise InputError(f'pool file {path}: unknown key {others[0]!r}; it holds "teachers" alone, a list with one table per teacher')
    configs: dict[str, FinetuneConfig | ExistingTeacher] = {}
    for number, table in enumerate(tables, start=1):
        place = f"pool file {path}, teacher {number}"
        name, config = _config(place, table)
        if name in configs:
            raise InputError(f"{place}: another teacher is called {name!r} too; give each its own name, which is the name of its folder")
        configs[name] = config
    return configs


def teach(
    path: Path, task: Task, out: Path, progress: ProgressCallback | None = None, checkpoint_minutes: float = CHECKPOINT_MINUTES
) -> Path:
    """Fine-tune every teacher of a pool file into a folder of ``out``, and return ``out``. Complete teachers are left as they are.

    Raises:
        InputError: the file or one of its configs cannot be used, or ``out`` holds other teachers. Nothing is trained then.
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
        if isinstance(config, ExistingTeacher):
            config.write(out / name, task)
        else:
            finetune(task, config, out / name, progress, checkpoint_minutes)
    (out / LIST_FILE).write_text(json.dumps({"teachers": list(configs)}))
    return out


def open_folder(folder: Path, task: Task) -> tuple[Teacher, ...]:
    """Return the teachers of a folder: a checkpoint, an out-of-fold teacher, or a folder of several.

    Several are in the order of the folder's list, or in alphabetic order where there is no list.

    Raises:
        InputError: there is no teacher, or one of them cannot be used.
    """
    if (folder / FOLDS_FILE).is_file():
        return (OutOfFoldTeacher(folder, task),)
    if (folder / REFERENCE_FILE).is_file():
        return (open_reference(folder, task),)
    if (folder / "config.json").is_file():
        return (CheckpointTeacher(str(folder), task),)
    names = sorted(_checkpoints(folder))
    if not names:
        raise InputError(f"{folder}: no config.json in it or in its folders; name a checkpoint, or a folder that kd-env teach wrote")
    if (folder / LIST_FILE).is_file():
        names = _listed(folder, names)
    return tuple(teacher for name in names for teacher in open_folder(folder / name, task))


def best_for_group(teachers: Sequence[Teacher], task: Task) -> tuple[int, ...] | None:
    """Return for each group of ``task`` the index of the teacher that was trained on it.

    This is known from what ``kd-env teach`` wrote beside the teachers, and says nothing about their quality.

    Returns:
        ``None`` unless each group was taught to exactly one teacher and each teacher was trained on groups of the task, with true labels.
    """
    groups_of = [_groups_of(teacher) for teacher in teachers]
    if not all(groups_of) or sorted(group for groups in groups_of for group in groups) != sorted(task.group_names):
        return None
    return tuple(next(k for k, groups in enumerate(groups_of) if group in groups) for group in task.group_names)


def _groups_of(teacher: Teacher) -> frozenset[str]:
    """Return the groups that a teacher was trained on with true labels; none where that is not known."""
    if isinstance(teacher, OutOfFoldTeacher):
        folders = teacher.folders
    else:
        folders = [teacher.folder] if isinstance(teacher, CheckpointTeacher) else []
    groups = set()
    for folder in folders:
        try:
            config = json.loads((folder / TEACHING_FILE).read_text())
            groups.add(frozenset(map(str, config["groups"])) if config["label_noise"] == 0.0 else frozenset())
        except (OSError, ValueError, KeyError, TypeError):  # another program made it
            return frozenset()
    return groups.pop() if len(groups) == 1 else frozenset()


def _checkpoints(folder: Path) -> set[str]:
    """Return the names of the folders in ``folder`` that hold a teacher."""
    entries = folder.iterdir() if folder.is_dir() else ()
    marks = ("config.json", FOLDS_FILE, REFERENCE_FILE)
    return {path.name for path in entries if path.name[0] != "." and any((path / name).is_file() for name in marks)}


def _listed(folder: Path, names: list[str]) -> list[str]:
    """Return the names in the folder's list, which must be ``names`` in any order."""
    try:
        listed: list[str] = json.loads((folder / LIST_FILE).read_text())["teachers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{folder / LIST_FILE}: no list of teachers; delete it, or run kd-env teach --pool again") from None
    if missing := [name for name in listed if name not in names]:
        raise InputError(f"{folder}: teacher {missing[0]!r} of {LIST_FILE} is not there; run kd-env teach --pool again")
    if others := [name for name in names if name not in listed]:
        raise InputError(f"{folder} holds {', '.join(others)}, which its {LIST_FILE} does not name; delete the list to use all")
    return listed


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a table, in which no key may occur twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice in one table")
    return table


def _config(place: str, table: Any) -> tuple[str, FinetuneConfig | ExistingTeacher]:
    """Return the name and the config of one table; ``place`` is for messages."""
    if not isinstance(table, dict):
        raise InputError(f"{place}: a {type(table).__name__}, expected a table with name and model")
    for key in ("name", "model"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise InputError(f"{place}: {key}={table.get(key)!r}, expected a text; every teacher has a name and a model")
    name, values = table["name"], {key: value for key, value in table.items() if key != "name"}
    if name == LIST_FILE or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"{place}: name {name!r} cannot be the name of a folder; use letters, digits, - and _")
    if "classes" in values:
        return name, _existing(place, values)
    for key, value in values.items():
        if key not in _TYPES:
            raise InputError(f"{place}: {unknown('key', key, ['name', 'classes', *_TYPES])}")
        if not isinstance(value, _TYPES[key]) or isinstance(value, bool) != (_TYPES[key] == (bool,)):
            raise InputError(f"{place}: {key}={value!r}, expected {_TYPES[key][-1].__name__}")
    if "groups" in values:
        values["groups"] = tuple(map(str, values["groups"]))
    assert set(values) <= {field.name for field in fields(FinetuneConfig)}
    return name, FinetuneConfig(**values)


def _existing(place: str, values: dict[str, Any]) -> ExistingTeacher:
    """Return the classifier of a table that has ``classes``."""
    classes = values["classes"]
    if not isinstance(classes, dict) or not all(isinstance(target, str) for target in classes.values()):
        raise InputError(f'{place}: classes={classes!r}, expected a mapping as {{NEGATIVE = "neg"}}, and "" to leave a class out')
    if others := sorted(values.keys() - {"model", "classes"}):
        raise InputError(
            f"{place}: {others[0]} says how a model is trained, and one with classes is not; leave out {', '.join(others)} or classes"
        )
    return ExistingTeacher(values["model"], tuple(map(tuple, classes.items())))
