"""Read and write tuned configurations as TOML files: one file per task and pool, with a table for each policy.

Those of the folder ``configurations`` ship with kd-env. ``kd-env bench --tune`` writes such files, and ``kd-env run --tuned`` reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_env import spec
from kd_env.benchmark.toml_files import read_toml
from kd_env.benchmark.tuning.configuration import Configuration
from kd_env.errors import InputError
from kd_env.paths import write_bytes

FOLDER = Path(__file__).parent / "configurations"
HOW = "make them with kd-env bench FILE.toml --tune N"


@dataclass(frozen=True)
class Tuned:
    """The tuned policies of a task and pool.

    Attributes:
        task: name of the task.
        teachers: name of the pool.
        student: student that was taught.
        updates: its number of updates.
        trials: validation trials of each policy.
        seeds: seeds of validation trials.
        command: command line that made them.
        policies: configurations by the policies' names.
        scores: mean validation score of the configuration and of the untuned policy on seeds that the search did not use, by the policies'
            names.
    """

    task: str
    teachers: str
    student: str
    updates: int
    trials: int
    seeds: tuple[int, ...]
    command: str
    policies: Mapping[str, Configuration]
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def write(path: Path, tuned: Tuned) -> None:
    """Write a file, completely or not at all."""
    head = {name: getattr(tuned, name) for name in ("task", "teachers", "student", "updates", "trials", "seeds", "command")}
    lines = ["# Written by kd-env bench --tune, read by kd-env run --tuned. Scores are means on validation.", *_pairs(head)]
    for name, configuration in tuned.policies.items():
        score, untuned = tuned.scores[name]
        table = {"options": configuration.options, "settings": configuration.settings, "score": score, "untuned_score": untuned}
        lines += ["", f"[policies.{_value(name)}]", *_pairs(table)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def read(path: Path) -> Tuned:
    """Read a file.

    Raises:
        InputError: it cannot be read, or is not a file of tuned policies.
    """
    content = read_toml(path, "tuned file")
    types = {"task": str, "teachers": str, "student": str, "updates": int, "trials": int, "seeds": list, "command": str, "policies": dict}
    for name, kind in types.items():
        if not isinstance(content.get(name), kind):
            raise InputError(f"tuned file {path}, {name}: {content.get(name)!r}, expected {kind.__name__}; {HOW}")
    policies: dict[str, Configuration] = {}
    scores: dict[str, tuple[float, float]] = {}
    for policy, table in content["policies"].items():
        place = f"tuned file {path}, policy {policy!r}"
        kinds: dict[str, Any] = {"options": dict, "settings": dict, "score": int | float, "untuned_score": int | float}
        if not isinstance(table, dict) or not all(isinstance(table.get(name), kind) for name, kind in kinds.items()):
            raise InputError(f"{place}: expected options, settings, score and untuned_score; {HOW}")
        policies[policy] = Configuration(table["options"], table["settings"], content["trials"])
        scores[policy] = (table["score"], table["untuned_score"])
    head = {name: content[name] for name in types if name not in ("policies", "seeds")}
    return Tuned(**head, seeds=tuple(content["seeds"]), policies=policies, scores=scores)


def find(task: str, teachers: str, place: Path | None = None) -> Tuned:
    """Return the tuned policies of a task and pool.

    Args:
        task: name of the task.
        teachers: name of the pool.
        place: a file, or a folder of files. Default: those that ship with kd-env.

    Raises:
        InputError: there are none, or a file cannot be read.
    """
    folder = FOLDER if place is None else place
    files = [folder] if folder.suffix == ".toml" else sorted(folder.glob("*.toml"))
    if not files:
        raise InputError(f"tuned folder {folder}: holds no .toml files; {HOW}")
    tuned = [read(path) for path in files]
    fitting = [each for each in tuned if (each.task, each.teachers) == (task, teachers)]
    if not fitting:
        available = "; ".join(dict.fromkeys(f"{each.task}, pool {each.teachers}" for each in tuned))
        raise InputError(
            f"no policy is tuned for task {task!r}, pool {teachers!r}, but for {available}; {HOW}, and use --tuned-from DIR/tuned"
        )
    if len(fitting) > 1:
        raise InputError(f"tuned folder {folder}: several files for task {task!r}, pool {teachers!r}; name one of them")
    return fitting[0]


def configuration(tuned: Tuned, policy: str, settings: Mapping[str, Any]) -> Configuration:
    """Return the configuration of a policy for trials with ``settings``.

    Raises:
        InputError: the policy is not tuned, or a setting of the trial is tuned.
    """
    name, by_name = str(spec.parse(policy)), {str(spec.parse(text)): of_policy for text, of_policy in tuned.policies.items()}
    if name not in by_name:
        raise spec.unknown(f"tuned policy for task {tuned.task!r}, pool {tuned.teachers!r}:", name, by_name, f"; {HOW}")
    chosen = by_name[name]
    if both := sorted(chosen.settings.keys() & settings.keys()):
        raise InputError(f"{both[0]}={settings[both[0]]!r}: this setting of policy {name!r} is tuned; leave it or --tuned out")
    return chosen


def file_name(task: str, teachers: str, number: int = 1) -> str:
    """Return the name of the file of a task and pool; ``number`` counts those of one pool."""
    name = teachers if teachers.startswith(f"{task}/") else f"{task}-{teachers}"
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") + (f"-{number}" if number > 1 else "") + ".toml"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in table.items()]


def _value(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_value(str(name))} = {_value(inner)}" for name, inner in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=isinstance(value, str) and "\x7f" in value)
