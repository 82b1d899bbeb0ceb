"""Check records without traces by a second run of their trials. In: records. Out: the differences, trial by trial.

Students that were taught together as a population are taught together again, so that all numbers can be compared exactly on the CPU.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_env import spec
from kd_env.benchmark.records import CONFIG_WITHOUT_SETTINGS, Record
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.tuning.configuration import Configuration, untuned_name
from kd_env.benchmark.versions import explained
from kd_env.errors import InputError
from kd_env.randomness import reproducible

COMPARED = (
    "task", "policy", "access", "student", "teachers", "pool", "updates", "metric", "env",
    "test", "validation", "reward_split", "reward_labels", "reward_sum", "selection_rate", "weight_entropy", "selection_entropy",
    "student_forward_examples", "reward_forward_examples", "teacher_forward_examples", "bank", "curve", "diverged",
)  # fmt: skip
"""Fields of a record that the trial determines. The other fields define the trial, or depend on the machine, the time and the version:
``trial`` changes with every setting that a version of the package adds."""

SCORES = ("test", "validation", "reward_split")
EXACT_WITH_TOLERANCE = ("task", "policy", "access", "student", "teachers", "pool", "updates", "metric", "env", "reward_labels", "diverged")
"""Fields that must be equal if the scores only have to agree within a tolerance. Further fields are not compared then."""


def trial_of(record: Record) -> Trial:
    """Return the trial of a record.

    Raises:
        InputError: it is of an older version, and does not hold the settings of its environment.
    """
    if record["env"] is None:
        raise InputError(f"{record['trial']}: the record does not hold the settings of its environment (env); make it again")
    config = record["config"]
    set_by_user = {name: value for name, value in config.items() if name not in CONFIG_WITHOUT_SETTINGS}
    source = config.get("policy_from")
    return Trial(
        record["env"]["task"],
        source["policy"] if source else untuned_name(record["policy"]),
        record["seed"],
        record["env"]["teachers"],
        record["env"]["bank"],
        record["suite"],
        set_by_user,
        config.get("command", ""),
        config.get("test", True),
        source["file"] if source else None,
        record["policy"].removeprefix(f"{spec.parse(source['policy'])} from ").removesuffix(", frozen") if source else "",
        config.get("frozen", False),
        Configuration(**config["tuned"]) if "tuned" in config else None,
    )


def units(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records in units that ran together, in the order of the first record of each unit."""
    groups: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    for position, record in enumerate(records):
        config = {name: value for name, value in record["config"].items() if name not in ("command", "policy_from")}
        env = {name: value for name, value in (record["env"] or {}).items() if name != "label_seed"}
        groups[json.dumps([record["policy"], record["suite"], config, env], sort_keys=True)].append((position, record))
    populations = []
    for group in groups.values():
        size = group[0][1]["config"].get("population", 1)
        populations += [group[start : start + size] for start in range(0, len(group), size)]
    return [[record for _, record in unit] for unit in sorted(populations, key=lambda unit: unit[0][0])]


def rerun(unit: Sequence[Record], tolerance: float = 0.0) -> dict[str, list[str]]:
    """Run the trials of a unit again and return the differences of each trial, one line per field, see :func:`differences`.

    Raises:
        InputError: a task, pool or policy no longer exists.
    """
    with tempfile.TemporaryDirectory() as folder, reproducible():
        new_records = run_trials([trial_of(record) for record in unit], Path(folder), lambda _trial: None)
    lines_by_trial = {record["trial"]: differences(record, new, tolerance) for record, new in zip(unit, new_records, strict=True)}
    population = unit[0]["config"].get("population", 1)
    if len(unit) < population:
        reason = f"only {len(unit)} of the {population} records of its population are here; it can differ in the last digits"
        lines_by_trial = {trial: [reason, *lines] if lines else [] for trial, lines in lines_by_trial.items()}
    return lines_by_trial


def differences(record: Record, second_run: Record, tolerance: float = 0.0) -> list[str]:
    """Return the differences between a record and a second run of its trial, after what can explain them.

    A ``selection_entropy`` of null is not compared.

    Args:
        tolerance: largest accepted difference of a score. Above 0, the other numbers of the trial are not compared.
    """
    lines = []
    for name in (*EXACT_WITH_TOLERANCE, *SCORES) if tolerance else COMPARED:
        recorded, new = record[name], json.loads(json.dumps(second_run[name]))
        accepted = name in SCORES and None not in (recorded, new) and abs(new - recorded) <= tolerance
        if recorded != new and not accepted and not (name == "selection_entropy" and recorded is None):
            lines.append(f"{name}: recorded {shown(recorded)}, again {shown(new)}")
    return explained(lines, record["versions"])


def shown(value: Any) -> str:
    """Return a value of a record as JSON, cut to 80 characters."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
