"""Refuse to mix trials of one policy that were run with different defaults. Reports group trials by what the user set, not by defaults."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kd_env.benchmark import records
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError

NOT_DEFAULTS = {"id", "num_envs", "task", "teachers", "bank", "label_seed"}
"""Keywords of an environment that are not settings, or that are compared by other names."""


def require_same_defaults(trials: Iterable[Trial], directory: Path) -> None:
    """Compare new trials with recorded trials of the same policy, task, pool and settings of the user, of any seed.

    Their environments differ if defaults of the policy, or of the environment, have changed since the records were written.

    Raises:
        InputError: a trial has other defaults than a recorded one.
    """
    new = {_key(trial.resolved.policy.name, trial.config, trial.resolved.env_keywords): trial.resolved.env_keywords for trial in trials}
    if not new or not records.finished(directory):
        return
    for record in records.read(directory):
        recorded = record["env"]
        current = recorded and new.get(_key(record["policy"], record["config"], recorded))
        if not current:
            continue
        names = sorted((current.keys() | recorded.keys()) - NOT_DEFAULTS)
        changed = [name for name in names if _json(current.get(name)) != _json(recorded.get(name))]
        if changed:
            raise InputError(
                f"{directory}: it holds trials of {record['policy']} with {_listed(recorded, changed)}, and the default is now "
                f"{_listed(current, changed)}; a report would mix both, so give another --out"
            )


def _key(policy: str, config: Mapping[str, Any], env: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in config.items() if name not in ("command", "population")}
    return _json([policy, settings, env["task"], env["teachers"]])


def _listed(env: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name}={env.get(name, '(not set)')}" for name in names)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
