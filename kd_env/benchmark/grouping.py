"""Group records by setting: trials that may be compared. In: records. Out: the records of each setting.

Settings are what trials must share: task, pool, student, budget, number of reward labels, and the other options that differ in a folder.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from kd_env.benchmark.records import Record
from kd_env.envs.settings import InterfaceSettings, RewardSettings

NOT_COMPARED = {"command", "population", "policy_from", "frozen", "tuned"}
"""Entries of the configuration that are ignored when records are grouped for comparison."""
POLICY_SETTINGS = {f.name for group in (RewardSettings, InterfaceSettings) for f in fields(group)} - {"reward_labels", "label_seed"}
"""Settings of what a policy is shown and paid. Policies with different values are compared, unless one policy was run with two values."""


@dataclass(frozen=True)
class Setting:
    """The values that trials must share to be compared.

    Attributes:
        task: name of the task.
        pool: name of the pool.
        student: network of the student.
        updates: number of student updates.
        reward_labels: number of reward labels.
        options: other entries of the configuration that differ within a results folder, as pairs of name and JSON value; ``null`` where
            a trial does not set it.
    """

    task: str
    pool: str
    student: str
    updates: int
    reward_labels: int
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        options = "".join(f", {text}" for text in self.option_texts().values())
        return f"{self.task}, pool {self.pool}, student {self.student}, {self.updates} updates, {self.reward_labels} reward labels{options}"

    def option_texts(self) -> dict[str, str]:
        """Return the texts of :attr:`options` by name, without those that are not set."""
        values = {name: json.loads(value) for name, value in self.options if value != "null"}
        return {name: f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()}


def by_setting(records: Sequence[Record]) -> dict[Setting, list[Record]]:
    """Return the records of each setting; settings are in the order of their first record.

    Of several records of one policy and seed, as of two suites, the last one counts.
    """
    groups: dict[Setting, list[Record]] = defaultdict(list)
    ambiguous = _ambiguous(records)
    for r in records:
        task, pool = _as_named(r) if (r["task"], r["pool"]) in ambiguous else (r["task"], r["pool"])
        groups[Setting(task, pool, r["student"], r["updates"], r["reward_labels"])].append(r)
    settings: dict[Setting, list[Record]] = defaultdict(list)
    for group, members in groups.items():
        varied = _varied_options(members)
        for r in members:
            options = tuple((name, _json(r["config"].get(name))) for name in varied)
            settings[replace(group, options=options)].append(r)
    return {setting: list({(r["policy"], r["seed"]): r for r in of_setting}.values()) for setting, of_setting in settings.items()}


def _as_named(record: Record) -> tuple[str, str]:
    """Return the task and the pool of a record as the user named them."""
    env = record.get("env") or {}
    return env.get("task") or record["task"], env.get("teachers") or record["pool"]


def _ambiguous(records: Sequence[Record]) -> set[tuple[str, str]]:
    """Return names of tasks and pools that several of the user's tasks or pools have; their banks differ."""
    banks: dict[tuple[str, str], dict[tuple[str, str], set[str | None]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        banks[record["task"], record["pool"]][_as_named(record)].add(record.get("bank"))
    ambiguous = set()
    for names, of_user in banks.items():
        num_banks = sum(len(of_one) for of_one in of_user.values())
        if len(of_user) > 1 and num_banks == len(set().union(*of_user.values())):
            ambiguous.add(names)
    return ambiguous


def _varied_options(records: Sequence[Record]) -> list[str]:
    """Return the names of the configuration entries in which any two trials differ, since such trials are not compared.

    Of `POLICY_SETTINGS`, only those in which two trials of the same policy differ. A missing entry counts as null. `population` is left
    out: it changes the result of a student by rounding only, or with dropout by chance, since it draws other masks. Entries about saved or
    tuned policies are left out too: the name of the policy contains them.
    """
    names = {name for record in records for name in record["config"]} - NOT_COMPARED
    values: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for record in records:
        for name in names:
            policy = record["policy"] if name in POLICY_SETTINGS else None
            values[name, policy].add(_json(record["config"].get(name)))
    return sorted({name for (name, _), different in values.items() if len(different) > 1})


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
