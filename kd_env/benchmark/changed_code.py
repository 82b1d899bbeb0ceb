"""Notice that a policy's own code has changed since its trials were finished. A trial's id does not depend on code, so they are kept."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path

from kd_env.benchmark.trial import Trial
from kd_env.plugins import is_built_in


def changed_code(finished: Iterable[Trial], directory: Path) -> list[str]:
    """Return a line for each policy of the user, ``module:Class``, whose file is newer than traces of its ``finished`` trials."""
    newer: dict[tuple[str, str], int] = {}
    for trial in finished:
        file, trace = _own_file(trial), directory / "traces" / f"{trial.id}.parquet"
        if file is not None and trace.exists() and file.stat().st_mtime > trace.stat().st_mtime:
            key = trial.resolved.policy.name, file.name
            newer[key] = newer.get(key, 0) + 1
    return [
        f"policy {policy}: {file} is newer than {count} of its finished trials, which are kept; give another --out to run the new code"
        for (policy, file), count in newer.items()
    ]


def _own_file(trial: Trial) -> Path | None:
    """Return the file of a policy of the user; ``None`` if it is built in, or has no file."""
    make = trial.resolved.policy.make
    if is_built_in(make):
        return None
    try:
        return Path(inspect.getfile(make))
    except (TypeError, OSError):  # written in a notebook or built in
        return None
