"""Collect what a report says. In: records. Out: a `Section` per setting, with the same content for report.md, report.html and a paper."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kd_env.analysis.figures import Styles
from kd_env.benchmark.grouping import Setting
from kd_env.benchmark.overview import overview, split_of_scores
from kd_env.benchmark.records import Record
from kd_env.benchmark.report_claims import Claim, all_pairs, claim
from kd_env.benchmark.report_figures import Plots, file_safe, setting_plots
from kd_env.benchmark.report_text import NO_VALUE, conclusions, difference, interval, number
from kd_env.benchmark.summary import FORWARDS, summarise

MAX_DRAWN, FEW_DRAWN = 12, 3
"""Settings of a report that have figures, which take most of its time; the second number is for folders with many records."""
MANY_RECORDS = 5000


def num_drawn(num_records: int) -> int:
    """Return the number of settings that have figures."""
    return MAX_DRAWN if num_records <= MANY_RECORDS else FEW_DRAWN


@dataclass(frozen=True)
class Table:
    """A table of formatted text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """The part of the report about one setting.

    Attributes:
        stem: start of the names of its files, unique in the report.
        setting: the setting.
        records: its records.
        table: its table from :func:`kd_env.benchmark.summary.summarise`.
        conclusions: the statements that the table supports.
        claim: what may be claimed about the policy with the highest score; None where there is nothing to compare.
        plots: its figures.
        config: values that the commands set.
    """

    stem: str
    setting: Setting
    records: Sequence[Record]
    table: pd.DataFrame
    conclusions: str
    claim: Claim | None
    plots: Plots
    config: Table

    @property
    def metric(self) -> str:
        """Name of the metric of the task."""
        return str(self.records[0]["metric"])


def make_section(directory: Path, index: int, drawn: int, setting: Setting, records: Sequence[Record], styles: Styles) -> Section:
    """Return the section of a setting, with figures if its ``index`` is at most ``drawn``.

    Raises:
        InputError: a trace cannot be read.
    """
    table = summarise(records)
    stem = f"{index:02d}-{file_safe(setting.task)}"
    config = [{name: value for name, value in record["config"].items() if name != "command"} for record in records]
    values = values_table("Values set by the commands", config)
    pairs = all_pairs(table, records)
    if index <= drawn:
        plots = setting_plots(directory, stem, table, records, styles, pairs)
    else:
        plots = Plots((), f"Figures are drawn for the first {drawn} settings. To see those of others, put their records in another folder.")
    return Section(stem, setting, records, table, conclusions(table, records), claim(pairs), plots, values)


def all_settings_table(groups: Mapping[Setting, Sequence[Record]]) -> Table | None:
    """Return the table of all settings, if there are several."""
    if len(groups) < 2:
        return None
    caption = (
        f"Mean {split_of_scores(groups)} score over seeds ± half of its 95 % t interval, and in brackets the mean difference to uniform, "
        "paired by seed: ▲ above or ▼ below it where the interval of the difference excludes zero. The intervals are not adjusted for the "
        "number of comparisons."
    )
    return Table(caption, *overview(groups))


def results_table(section: Section) -> Table:
    """Return the table of scores, in the order of the access classes."""
    scores = (f"test {section.metric} [95 %]", "validation", "gap recovered [95 %]", "reward − validation", "test − best rival")
    rows, access = [], ""
    for row in section.table.itertuples():
        first, access = "" if row.access == access else row.access, row.access
        rows.append((first, row.policy, *score_cells(row)))
    caption = (
        "Means over seeds with Student's t interval. Gap recovered: 0 is uniform, 1 is oracle. Best rival: the baseline with the highest "
        "validation score among those that have the same labels. Differences are paired by seed; p is Holm-adjusted over this table."
    )
    return Table(caption, ("access", "policy", "n", *scores), rows)


def score_cells(row: Any) -> tuple[str, ...]:
    """Return the cells of a row of the table of scores, after access and policy."""
    versus = "rival" if row.rival else difference(row) if row.pairs else NO_VALUE
    test, gap = interval(row.test, row.test_low, row.test_high), interval(row.gap, row.gap_low, row.gap_high)
    diverged = f" ({row.diverged} diverged)" if row.diverged else ""
    return f"{row.n}{diverged}", test, number(row.validation), gap, number(row.overfit, "+"), versus


def costs_table(table: pd.DataFrame) -> Table:
    """Return the table of costs."""
    columns = {"wall_s": "wall seconds", "peak_rss_mb": "peak memory (MB)"} | {name: name.replace("_", " ") for name in FORWARDS}
    rows = [(row["policy"], *(_count(row[name]) for name in columns)) for _, row in table.iterrows()]
    return Table("Medians over seeds, per trial.", ("policy", *columns.values()), rows)


def values_table(caption: str, dicts: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of all entries with their distinct values."""
    names = sorted({name for entries in dicts for name in entries})
    rows = [(name, "; ".join(distinct(as_text(entries[name]) for entries in dicts if name in entries))) for name in names]
    return Table(caption, ("name", "value"), rows)


def as_text(value: Any) -> str:
    """Return a text as it is, and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def distinct(values: Iterable[str]) -> list[str]:
    """Return the different values in the order of their first appearance."""
    return list(dict.fromkeys(values))


def _count(value: float) -> str:
    return NO_VALUE if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
