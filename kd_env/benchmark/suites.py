"""Read suites: named sets of trials in TOML files. In: a name or a file. Out: parts, each with some policies on one task and pool.

The built-in suites are the files of the folder ``suites``; ``docs/how-to/suites.md`` explains the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kd_env import spec, tasks
from kd_env.benchmark.toml_files import read_toml
from kd_env.benchmark.trial import Trial
from kd_env.envs.settings import settings as make_settings
from kd_env.errors import InputError
from kd_env.models.networks import begins_as_checkpoint, build
from kd_env.policies import registry
from kd_env.tasks import Task
from kd_env.teachers import POOLS
from kd_env.teachers.pools import require_task

FOLDER = Path(__file__).parent / "suites"
DEFAULT_SEEDS = range(5)


@dataclass(frozen=True)
class Part:
    """Some policies on one task and pool.

    Attributes:
        task: name of the task.
        policies: names of the policies, with options.
        teachers: pool of teachers. Default: the task's.
        updates: student updates of each trial. Default: the task's.
        population: number of seeds of a policy that run at once as one population, which is faster for small students.
        student: network of the student. Default: the task's.
        settings: other settings of all trials.
        own_settings: more settings of single policies, by their names.
        seeds: seeds of each policy. Default: the suite's.
    """

    task: str
    policies: tuple[str, ...]
    teachers: str | None = None
    updates: int | None = None
    population: int = 1
    student: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Sequence[int] | None = None

    def settings_of(self, policy: str = "") -> dict[str, Any]:
        """Return all settings of the trials of a policy, or those that all policies share."""
        named = {"student": self.student, "updates": self.updates}
        return {**{name: value for name, value in named.items() if value is not None}, **self.settings, **self.own_settings.get(policy, {})}

    def trials(self, suite: str, seeds: Sequence[int], command: str) -> list[Trial]:
        """Return a trial for each policy and seed, seed by seed, so that a stopped run has the same seeds of all policies."""
        return [
            Trial(self.task, policy, seed, self.teachers, None, suite, self.settings_of(policy), command)
            for seed in seeds
            for policy in self.policies
        ]


@dataclass(frozen=True)
class Suite:
    """Parts that are reported together.

    Attributes:
        about: description for ``kd-env list suites``.
        parts: parts of the suite.
        seeds: seeds of each policy.
    """

    about: str
    parts: tuple[Part, ...]
    seeds: Sequence[int]


def find(text: str, data_dir: str | None = None) -> tuple[str, Suite]:
    """Return the name and the content of a built-in suite, or of a suite file; its parts are checked.

    Args:
        text: name of the suite, or path of a ``.toml`` file.
        data_dir: folder of the data of its tasks.

    Raises:
        InputError: there is no such suite, or a part of it cannot be used.
    """
    if text.endswith(".toml"):
        name, suite = Path(text).stem, read(Path(text))
    elif text in SUITES:
        name, suite = text, SUITES[text]
    else:
        raise spec.unknown("suite", text, SUITES, "; or name a .toml file of your own")
    suite = replace(suite, parts=tuple(replace(part, task=tasks.with_data_dir(part.task, data_dir)) for part in suite.parts))
    for number, part in enumerate(suite.parts, start=1):
        _check(f"suite {text}, part {number}", part)
    return name, suite


def read(path: Path) -> Suite:
    """Return the suite of a file. Its names of tasks, pools, policies and settings are not looked up; :func:`find` does that.

    Raises:
        InputError: the file cannot be read, or a key or value in it is not part of the format.
    """
    place = f"suite {path}"
    values = _typed(place, read_toml(path, "suite"), {"about": str, "seeds": (str, list), "lists": dict, "part": list})
    lists = {name: _list(f"{place}, lists.{name}", entries) for name, entries in values.get("lists", {}).items()}
    tables = values.get("part")
    if not tables:
        raise InputError(f"{place}: no [[part]] in it; give it at least one, with task and policies")
    parts = tuple(_part(f"{place}, part {number}", table, lists) for number, table in enumerate(tables, start=1))
    return Suite(values.get("about", ""), parts, _seeds(place, values.get("seeds")) or DEFAULT_SEEDS)


_PART: dict[str, Any] = {
    "task": str, "policies": list, "teachers": str, "student": str, "updates": int, "population": int, "seeds": (str, list), "set": dict,
}  # fmt: skip


def _part(place: str, table: Any, lists: Mapping[str, Sequence[str]]) -> Part:
    values = _typed(place, table, _PART)
    for key in ("task", "policies"):
        if not values.get(key):
            raise InputError(f"{place}, {key}: missing; every part names a task and at least one policy")
    policies, own_settings = _names(f"{place}, policies", values["policies"], lists)
    if not policies:
        raise InputError(f"{place}, policies: {values['policies']} names none; name at least one")
    if (population := values.get("population", 1)) < 1:
        raise InputError(f"{place}, population: {population}; must be at least 1")
    shared = {name: values.get(name) for name in ("teachers", "updates", "student")}
    seeds = _seeds(place, values.get("seeds"))
    return Part(
        values["task"], policies, population=population, settings=values.get("set", {}), own_settings=own_settings, seeds=seeds, **shared
    )


def _typed(place: str, table: Any, types: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table after a check of its keys and the types of its values."""
    if not isinstance(table, dict):
        raise InputError(f"{place}: a {type(table).__name__}, expected a table")
    for key, value in table.items():
        if key not in types:
            raise InputError(f"{place}: {spec.unknown('key', key, types)}")
        kinds = types[key] if isinstance(types[key], tuple) else (types[key],)
        if not isinstance(value, kinds) or isinstance(value, bool):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{place}, {key}: {value!r} is a {type(value).__name__}, expected {expected}")
    return table


def _names(place: str, entries: Any, lists: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """Return the policies of an array, with those of its lists (``@NAME``) in their place, and the settings of single ones."""
    names: list[str] = []
    own_settings: dict[str, dict[str, Any]] = {}
    if not isinstance(entries, list):
        raise InputError(f"{place}: a {type(entries).__name__}, expected an array of policies")
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


def _check(place: str, part: Part) -> None:
    """Look up everything that a part names.

    Raises:
        InputError: a name or a value is unknown; the message says in which key of the part.
    """
    with _naming(place, "task"):
        task = tasks.load(part.task)
    if part.teachers is not None:
        with _naming(place, "teachers"):
            _check_pool(part.teachers, task)
    for name in part.policies:
        with _naming(place, "policies"):
            policy = registry.find(name)
            spec.require_options(f"policy {name!r}", policy.make, policy.options, None, 0)
        with _naming(place, "set"):
            student = make_settings(task, **part.settings_of(name)).distillation.student
        with _naming(place, "student"):
            _ = begins_as_checkpoint(student) or build(student, task, 0)
    for trial in part.trials("check", [0], ""):
        with _naming(place, "policies"):
            _ = trial.resolved


def _check_pool(text: str, task: Task) -> None:
    """Refuse a built-in pool of another task, or one that does not exist; other names are looked up when the teachers are loaded."""
    pool_of_teacher, kinds = text.rpartition("/")[0], {pool.split("/")[0] for pool in POOLS}
    is_plain = not any(character in text for character in ",:(") and not Path(text).expanduser().exists()
    if not text or (is_plain and text.split("/")[0] in kinds and not {text, pool_of_teacher} & POOLS.keys()):
        raise spec.unknown("pool", text, POOLS)
    if text in POOLS:
        require_task(text, task)


@contextmanager
def _naming(place: str, key: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}, {key}: {error}") from None


SUITES = {path.stem: read(path) for path in sorted(FOLDER.glob("*.toml"))}
"""The built-in suites by name."""
