"""Read suites: named sets of trials in TOML files. In: a name or a file. Out: parts, each with some policies on one task and pool.

The built-in suites are the files of the folder ``suites``; ``docs/how-to/suites.md`` explains the format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from kd_env import spec, tasks
from kd_env.benchmark.suite_checks import check
from kd_env.benchmark.suite_parts import Part, Suite
from kd_env.benchmark.toml_files import read_toml
from kd_env.errors import InputError

FOLDER = Path(__file__).parent / "suites"
DEFAULT_SEEDS = range(5)


def find(text: str, data_dir: str | None = None, task: str | None = None) -> tuple[str, Suite]:
    """Return the name and the content of a built-in suite, or of a suite file; its parts are checked.

    Args:
        text: name of the suite, or path of a ``.toml`` file.
        data_dir: folder of the data of its tasks.
        task: task in place of the suite's. Default: the suite's tasks.

    Raises:
        InputError: there is no such suite, or a part of it cannot be used, or ``task`` is to replace several tasks.
    """
    if text.endswith(".toml"):
        name, suite = Path(text).stem, read(Path(text))
    elif text in SUITES:
        name, suite = text, SUITES[text]
    else:
        raise spec.unknown("suite", text, SUITES, " (or name a .toml file of your own)")
    named = list(dict.fromkeys(part.task for part in suite.parts))
    if task is not None and len(named) > 1:
        raise InputError(f"suite {text} has several tasks ({', '.join(named)}); --task replaces the task of a suite that has one")
    suite = replace(suite, parts=tuple(replace(part, task=tasks.with_data_dir(task or part.task, data_dir)) for part in suite.parts))
    for part in suite.parts:
        check(f"suite {text}, part {part.number}", part)
    return name, suite


def read(path: Path) -> Suite:
    """Return the suite of a file. Its names of tasks, pools, policies and settings are not looked up; :func:`find` does that.

    Raises:
        InputError: the file cannot be read, or a key or value in it is not part of the format.
    """
    place, content = f"suite {path}", read_toml(path, "suite")
    if isinstance(content.get("part"), dict):
        raise InputError(f"{place}: [part] is a single table; write [[part]], in two brackets, above each part")
    values = _typed(place, content, {"about": str, "seeds": (str, list), "lists": dict, "default": dict, "part": list})
    lists = {name: _list(f"{place}, lists.{name}", entries) for name, entries in values.get("lists", {}).items()}
    tables = values.get("part")
    if not tables:
        raise InputError(f"{place}: no [[part]] in it; give it at least one, with task and policies")
    default = _typed(f"{place}, default", values.get("default", {}), _PART)
    parts = [part for number, table in enumerate(tables, start=1) for part in _parts(place, number, table, default, lists)]
    return Suite(values.get("about", ""), tuple(parts), _seeds(place, values.get("seeds")) or DEFAULT_SEEDS)


_TOML_NAMES: dict[type, str] = {str: "a text", int: "a whole number", list: "an array", dict: "a table"}

_PART: dict[str, Any] = {
    "task": (str, list), "policies": list, "teachers": (str, list), "student": str, "updates": int, "population": int,
    "seeds": (str, list), "set": dict,
}  # fmt: skip


def _parts(place: str, number: int, table: Any, default: Mapping[str, Any], lists: Mapping[str, Sequence[str]]) -> list[Part]:
    """Return the part of a table, or one for each of its tasks and pools; keys that it does not have are those of ``default``."""
    place = f"{place}, part {number}"
    own = _typed(place, table, _PART)
    values = {**default, **own, "set": {**default.get("set", {}), **own.get("set", {})}}
    for key in ("updates", "student"):
        if key in values and key in values["set"]:
            raise InputError(f"{place}: {key} is given twice, also in set; give one of them")
    for key in ("task", "policies"):
        if not values.get(key):
            raise InputError(f"{place}, {key}: missing; every part names a task and at least one policy")
    policies, own_settings = _names(f"{place}, policies", values["policies"], lists)
    if not policies:
        raise InputError(f"{place}, policies: {values['policies']} names none; name at least one")
    if (population := values.get("population", 1)) < 1:
        raise InputError(f"{place}, population: {population}; must be at least 1")
    seeds = _seeds(place, values.get("seeds"))
    return [
        Part(
            task=task,
            policies=policies,
            teachers=pool,
            updates=values.get("updates"),
            population=population,
            student=values.get("student"),
            settings=values["set"],
            own_settings=own_settings,
            seeds=seeds,
            number=number,
        )
        for task, pool in product(_texts(f"{place}, task", values["task"]), _texts(f"{place}, teachers", values.get("teachers")))
    ]


def _texts(place: str, value: str | list[Any] | None) -> list[Any]:
    """Return the texts of an array, or a single one as a list."""
    if not isinstance(value, list):
        return [value]
    if not value or not all(isinstance(text, str) for text in value):
        raise InputError(f"{place}: {value!r}; expected a text, or an array of texts")
    return value


def _typed(place: str, table: Any, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table after a check of its keys and the types of its values."""
    if not isinstance(table, dict):
        raise InputError(f"{place}: {table!r}, expected a table")
    for key, value in table.items():
        if key not in types:
            raise InputError(f"{place}: {spec.unknown('key', key, types)}")
        kinds = types[key] if isinstance(types[key], tuple) else (types[key],)
        if not isinstance(value, kinds) or isinstance(value, bool):
            expected = " or ".join(_TOML_NAMES[kind] for kind in kinds)
            raise InputError(f"{place}, {key}: {value!r}, expected {expected}")
    return table


def _names(place: str, entries: Any, lists: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """Return the policies of an array, with those of its lists (``@NAME``) in their place, and the settings of single ones."""
    names: list[str] = []
    own_settings: dict[str, dict[str, Any]] = {}
    if not isinstance(entries, list):
        raise InputError(f"{place}: {entries!r}, expected an array of policies")
    for entry in entries:
        if isinstance(entry, str) and entry.startswith("@"):
            if entry[1:] not in lists:
                raise InputError(f"{place}: {spec.unknown('list', entry[1:], lists)}")
            names += lists[entry[1:]]
        elif isinstance(entry, str):
            names.append(entry)
        else:
            values = _typed(place, entry, {"name": str, "set": dict})
            if "name" not in values:
                raise InputError(f"{place}: {entry!r} has no name; write a policy as a text, or as {{name = ..., set = {{...}}}}")
            names.append(values["name"])
            own_settings[values["name"]] = values.get("set", {})
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{place}: {twice[0]!r} is named twice; name it once, or in another part")
    return tuple(names), own_settings


def _list(place: str, entries: Any) -> tuple[str, ...]:
    if isinstance(entries, list) and (inner := [entry for entry in entries if isinstance(entry, str) and entry.startswith("@")]):
        raise InputError(f"{place}: {inner[0]!r} is a list, which a list cannot hold; name its policies, or name both lists in the part")
    names, own_settings = _names(place, entries, {})
    if own_settings:
        raise InputError(f"{place}: {next(iter(own_settings))!r} has settings of its own; give them in a part")
    return names


def _seeds(place: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, list):
        if not value or not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value):
            raise InputError(f'{place}, seeds: {value!r} names no seeds; expected whole numbers as [0, 1, 2], or a text as "0-4"')
        value = ",".join(map(str, value))
    return tuple(spec.seeds(value, f"{place}, seeds:"))


SUITES = {path.stem: read(path) for path in sorted(FOLDER.glob("*.toml"))}
"""The built-in suites by name."""
