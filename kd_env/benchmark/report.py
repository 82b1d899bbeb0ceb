"""Write the report of a results folder. In: its records and traces. Out: report.md, report.html and figures/ in the same folder.

The HTML page contains its figures and needs no other file. Files are replaced as a whole, so a reader never sees a partial report.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure

from kd_env.analysis.figures import learning_curves, scores_figure, selection_by_group_figure
from kd_env.analysis.traces import read_trace
from kd_env.benchmark.overview import overview
from kd_env.benchmark.records import Record, read
from kd_env.benchmark.report_text import NO_VALUE, conclusions, difference, interval, number
from kd_env.benchmark.summary import Setting, base_name, by_setting, summarise, uses_reward_labels


def write_report(directory: Path | str) -> Path:
    """Write the report of a results folder and return the path of its report.html.

    Raises:
        InputError: the folder has no records, or a record or trace cannot be read.
    """
    directory = Path(directory)
    records = read(directory)
    groups = by_setting(records)
    sections = [_section(directory, index, *group) for index, group in enumerate(groups.items(), start=1)]
    policies = {record["policy"] for record in records}
    view = {
        "title": "kd-env: " + ", ".join(_distinct(record["suite"] or record["task"] for record in records)),
        "overview": f"Trials: {len(records)}. Policies: {len(policies)}. Settings: {len(sections)}.",
        "all_settings": _all_settings(groups),
        "sections": sections,
        "commands": _distinct(_text(record["config"]["command"]) for record in records if record["config"].get("command")),
        "versions": _values("Versions and devices", [record["versions"] | {"device": record["device"]} for record in records]),
    }
    for name in ("report.md", "report.html"):
        source = Path(__file__).with_name(f"{name}.jinja").read_text(encoding="utf-8")
        engine = Environment(autoescape=name.endswith("html"), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        _replace(directory / name, engine.from_string(source).render(view).encode())
    return directory / "report.html"


@dataclass(frozen=True)
class Table:
    """A table of formatted text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure: its file in figures/ for report.md, its bytes for report.html."""

    file: str
    caption: str
    base64: str


@dataclass(frozen=True)
class Section:
    """The part of the report about one setting."""

    title: str
    conclusions: str
    results: Table
    figures: Sequence[Picture]
    costs: Table
    config: Table


def _all_settings(groups: Mapping[Setting, Sequence[Record]]) -> Table | None:
    """Return the table of all settings, if there are several."""
    if len(groups) < 2:
        return None
    caption = (
        "Mean test score over seeds ± half of its 95 % t interval, and in brackets the mean difference to uniform, paired by seed: ▲ above "
        "or ▼ below it where the interval of the difference excludes zero. The intervals are not adjusted for the number of comparisons."
    )
    return Table(caption, *overview(groups))


def _section(directory: Path, index: int, setting: Setting, records: Sequence[Record]) -> Section:
    table = summarise(records)
    stem = f"{index:02d}-" + re.sub(r"[^A-Za-z0-9_]+", "-", setting.task).strip("-")
    pictures = []
    for name, caption, figure in _figures(directory, table, records):
        image = io.BytesIO()
        figure.savefig(image, format="png", bbox_inches="tight")
        _replace(directory / "figures" / f"{stem}-{name}.png", image.getvalue())
        pictures.append(Picture(f"{stem}-{name}.png", caption, base64.b64encode(image.getvalue()).decode()))
    config = [{name: value for name, value in record["config"].items() if name != "command"} for record in records]
    results, values = _results(table, records[0]["metric"]), _values("Values set by the commands", config)
    return Section(str(setting), conclusions(table, records), results, pictures, _costs(table), values)


def _figures(directory: Path, table: pd.DataFrame, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    """Yield file name, caption and figure."""
    if table["test"].notna().any():
        yield "scores", "Test score by policy, mean and 95 % t interval over seeds.", scores_figure(table, records[0]["metric"])
    if any(record["curve"] for record in records):
        yield "curves", "Learning curves on the validation split, mean and 95 % t interval over seeds.", learning_curves(records)
    for row in table.itertuples():
        if uses_reward_labels(row.access) or base_name(row.policy) == "oracle":
            runs = sorted((r for r in records if r["policy"] == row.policy), key=lambda record: int(record["seed"]))
            traces = ((run, directory / "traces" / f"{run['trial']}.parquet") for run in runs)
            for run, path in [(run, path) for run, path in traces if path.is_file()][:1]:
                caption = f"Mean weight that {row.policy} gives to each teacher, by group of examples, seed {run['seed']}."
                yield f"selection-{run['trial']}", caption, selection_by_group_figure(read_trace(path))


def _results(table: pd.DataFrame, metric: str) -> Table:
    scores = (f"test {metric} [95 %]", "validation", "gap recovered [95 %]", "reward − validation", "test − best rival")
    rows, access = [], ""
    for row in table.itertuples():
        versus = "rival" if row.rival else difference(row) if row.pairs else NO_VALUE
        test, gap = interval(row.test, row.test_low, row.test_high), interval(row.gap, row.gap_low, row.gap_high)
        diverged = f" ({row.diverged} diverged)" if row.diverged else ""
        first, access = "" if row.access == access else row.access, row.access
        rows.append((first, row.policy, f"{row.n}{diverged}", test, number(row.validation), gap, number(row.overfit, "+"), versus))
    caption = (
        "Means over seeds with Student's t interval. Gap recovered: 0 is uniform, 1 is oracle. Best rival: the baseline with the highest "
        "validation score among those that have the same labels. Differences are paired by seed; p is Holm-adjusted over this table."
    )
    return Table(caption, ("access", "policy", "n", *scores), rows)


def _costs(table: pd.DataFrame) -> Table:
    columns = {
        "wall_s": "wall seconds", "peak_rss_mb": "peak memory (MB)", "student_forward_examples": "student forward examples",
        "reward_forward_examples": "reward forward examples", "teacher_forward_examples": "teacher forward examples",
    }  # fmt: skip
    rows = [(row["policy"], *(_count(row[name]) for name in columns)) for _, row in table.iterrows()]
    return Table("Medians over seeds, per trial.", ("policy", *columns.values()), rows)


def _values(caption: str, dicts: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of all entries with their distinct values."""
    names = sorted({name for entries in dicts for name in entries})
    rows = [(name, "; ".join(_distinct(_text(entries[name]) for entries in dicts if name in entries))) for name in names]
    return Table(caption, ("name", "value"), rows)


def _count(value: float) -> str:
    return NO_VALUE if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _distinct(values: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    os.replace(partial, path)
