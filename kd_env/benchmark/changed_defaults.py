"""Refuse to mix trials of one policy with different default settings or data. Reports group trials by what the user set."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_env.benchmark import records
from kd_env.benchmark.records import ENV_WITHOUT_SETTINGS, Record
from kd_env.benchmark.trial import Trial
from kd_env.envs.settings import settings as make_settings
from kd_env.errors import InputError
from kd_env.tasks import Task


def require_same_defaults(trials: Iterable[Trial], directory: Path) -> None:
    """Compare the settings of new trials with those of recorded trials of the same policy, task, pool and user's settings, of any seed.

    They differ if another version of a policy (``env_options``) or of an environment (``defaults``) sets others. Defaults of
    :class:`~kd_env.envs.settings.Settings` and options of policies are not recorded, and not compared.

    Raises:
        InputError: a trial that is not recorded has other settings than a recorded one, or its task, teachers or student have other data;
            or the test split, the tuned configuration or the saved policy has changed since a trial was recorded.
    """
    if not (recorded := records.by_trial(directory)):
        return
    trials = list(trials)
    of_key = {_key_of(trial): trial for trial in trials}
    new = {_key_of(trial): trial for trial in trials if trial.id not in recorded}
    of_row = defaultdict(list)  # by what a row of a report's table shares
    for trial in trials:
        of_row[_row_of(trial)].append(trial)
    compared: set[tuple[str, str | None]] = set()
    for record in recorded.values():
        env = record["env"] or {}
        task, pool = env.get("task"), env.get("teachers") or record["pool"]
        key = _key(record["policy"], record["config"], task, pool)
        if (unfinished := new.get(key)) is not None:
            _require_same(unfinished, record, directory)
            if (key, record["suite"]) not in compared:  # one record shows it
                _require_same_content(unfinished, record, directory)
            compared.add((key, record["suite"]))
        if (same_key := of_key.get(key)) is not None:
            _require_same_test(same_key, record, directory)
        for same_row in of_row.get((record["policy"], str(task), pool, record["updates"], record["student"]), ()):
            _require_same_start(same_row, record, directory)


def _require_same(trial: Trial, record: Record, directory: Path) -> None:
    old, new = _settings(trial.resolved.task, record["env"]), trial.resolved.settings.flat()
    changed = [name for name in new if name in old and old[name] != new[name] and name not in ENV_WITHOUT_SETTINGS]
    if changed:
        raise InputError(
            f"{directory}: its trials of {record['policy']} were run with {_listed(old, changed)}; by default they now have "
            f"{_listed(new, changed)}, and a report would mix both; give another --out"
        )


def _require_same_content(trial: Trial, record: Record, directory: Path) -> None:
    if trial.policy_from is not None:  # each seed may have a saved policy of its own
        return
    if replace(trial, seed=record["seed"], suite=record["suite"]).id != record["trial"]:
        raise InputError(
            f"{directory}: its trials of {record['policy']} were run with other content of the task, the teachers or the student, or by "
            "another version of kd-env, and a report would mix both; give another --out"
        )


def _require_same_test(trial: Trial, record: Record, directory: Path) -> None:
    recorded, present = record.get("test_split"), trial.resolved.task.test_fingerprint  # older records lack it
    if trial.test and recorded and recorded != present:
        raise InputError(f"{directory}: the test split of {record['task']} has changed since its trials were run; give another --out")


def _require_same_start(trial: Trial, record: Record, directory: Path) -> None:
    """Compare the tuned configuration of a trial, and for an equal seed its saved policy, with those of a record of the same row."""
    old, tuned = record["config"], None if trial.tuned is None else trial.tuned.as_dict()
    if trial.test and old.get("test", True) and tuned != old.get("tuned"):  # the search itself opens no test
        raise InputError(f"{directory}: its trials of {record['policy']} have another tuned configuration; give another --out")
    if trial.policy_from is None or trial.seed != record["seed"]:
        return
    if trial.config["policy_from"]["sha256"] != old["policy_from"].get("sha256"):
        raise InputError(
            f"{directory}: its trial of {record['policy']} seed {trial.seed} began with another saved policy; give another --out"
        )


def _pool_of(trial: Trial) -> tuple[str, str]:
    return trial.task, trial.teachers or trial.resolved.task.defaults.pool


def _row_of(trial: Trial) -> tuple[str, str, str, int, str]:
    distillation = trial.resolved.settings.distillation
    return (trial.resolved.policy.name, *_pool_of(trial), distillation.updates, distillation.student)


def _settings(task: Task, env: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a recorded environment; none if this version does not know one of them."""
    try:
        return make_settings(task, **{name: value for name, value in env.items() if name not in ENV_WITHOUT_SETTINGS}).flat()
    except InputError:
        return {}


def _key_of(trial: Trial) -> str:
    return _key(trial.resolved.policy.name, trial.config, *_pool_of(trial))


def _key(policy: str, config: Mapping[str, Any], task: Any, pool: str) -> str:
    """Return what trials share that a report averages; of saved policies, ``policy`` names the place."""
    settings = {name: value for name, value in config.items() if name not in ("command", "population", "policy_from")}
    return json.dumps([policy, settings, task, pool], sort_keys=True, default=str)


def _listed(settings: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name}={settings[name]}" for name in names)
