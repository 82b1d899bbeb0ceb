"""Average over seeds. In: records and their folder, or a table with a column seed. Out: traces by policy and seed, means with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kd_env.analysis.intervals import t_quantile
from kd_env.analysis.traces import read_trace
from kd_env.errors import InputError

Traces = Mapping[int, pd.DataFrame]
"""The traces of one policy by seed."""


def read_traces(directory: Path | str, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, pd.DataFrame]]:
    """Return the traces of the records of one setting, by policy and seed.

    Args:
        directory: results folder.
        records: records of one setting, see :func:`kd_env.benchmark.grouping.by_setting`.

    Raises:
        InputError: a trace cannot be read, or a policy has two records with one seed, because they are of two settings.
    """
    require_one_setting(records, f"{directory}: ")
    traces: dict[str, dict[int, pd.DataFrame]] = {}
    for record in records:
        trace = read_trace(Path(directory) / "traces" / f"{record['trial']}.parquet")
        traces.setdefault(record["policy"], {})[record["seed"]] = trace
    return traces


def require_one_setting(records: Sequence[Mapping[str, Any]], place: str = "") -> None:
    """Check that no policy has two records with one seed, as records of two settings have.

    Raises:
        InputError: a policy has two, which ``place`` names first.
    """
    pairs = Counter((record["policy"], record["seed"]) for record in records)
    for (policy, seed), number in pairs.items():
        if number > 1:
            raise InputError(
                f"{place}policy {policy!r} has two records with seed {seed}; give the records of one setting, "
                "see kd_env.benchmark.grouping.by_setting"
            )


def for_each_seed(function: Callable[..., pd.DataFrame], *traces: Traces, **options: Any) -> pd.DataFrame:
    """Return the tables ``function(trace, ..., **options)`` of all seeds, one below the other, with a column seed.

    Args:
        function: a function of one trace, or of one trace from each of several policies, that returns a table.
        traces: traces by seed of each policy; the seeds that all of them have are used.

    Raises:
        InputError: the policies share no seed.
    """
    seeds = [seed for seed in traces[0] if all(seed in others for others in traces)]
    if not seeds:
        raise InputError(f"no seed is in all of {[sorted(of_policy) for of_policy in traces]}; run the policies with the same seeds")
    tables = [function(*(of_policy[seed] for of_policy in traces), **options).assign(seed=seed) for seed in seeds]
    return pd.concat(tables, ignore_index=True)


def over_seeds(table: pd.DataFrame, value: str, by: Sequence[str] = (), level: float = 0.95) -> pd.DataFrame:
    """Return the mean over seeds of a column, with Student's t interval.

    Args:
        table: a table with the column seed.
        value: column to average. A nan is left out.
        by: columns that tell the rows of one seed apart.

    Returns:
        A table with the columns ``by``, ``value``, low, high and n (number of seeds). The interval of one seed is nan.

    Raises:
        InputError: two rows agree in ``by`` and seed.
    """
    keys = list(by)
    if table.duplicated([*keys, "seed"]).any():
        raise InputError(f"over_seeds: several rows have the same {', '.join([*keys, 'seed'])}; name in `by` all columns that differ")
    groups = table.groupby(keys)[value] if keys else table.groupby(np.zeros(len(table)))[value]
    mean, error, n = groups.mean(), groups.sem(), groups.count()
    half = error * [t_quantile((1 + level) / 2, max(count - 1, 1)) for count in n]
    result = pd.DataFrame({value: mean, "low": mean - half, "high": mean + half, "n": n})
    return result.reset_index(drop=not keys)
