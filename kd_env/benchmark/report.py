"""A results folder to a report. In: DIRECTORY/results.jsonl and traces/. Out: report.md, report.html and figures/*.png beside them.

The HTML page holds its figures and needs no other file. Every file is replaced whole, so a reader never sees half a report.
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
from kd_env.benchmark.report_text import NOTHING, difference, interval, number, reading
from kd_env.benchmark.summary import USES_REWARD_LABELS, Setting, base_name, by_setting, summarise


def write_report(directory: Path | str) -> Path:
    """Write the report of a results folder and return the path of its report.html.

    Raises:
        InputError: no records in the folder, or a record or trace that cannot be read.
    """
    directory = Path(directory)
    records = read(directory)
    groups = by_setting(records)
    sections = [_section(directory, place, *group) for place, group in enumerate(groups.items(), start=1)]
    policies = {record["policy"] for record in records}
    view = {
        "title": "kd-env: " + ", ".join(_distinct(record["suite"] or record["task"] for record in records)),
        "overview": f"Trials: {len(records)}. Policies: {len(policies)}. Settings: {len(sections)}.",
        "together": _together(groups),
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
    """Cells as they are printed."""

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
    """What the templates print of one setting."""

    title: str
    reading: str
    results: Table
    figures: Sequence[Picture]
    costs: Table
    config: Table


def _together(groups: Mapping[Setting, Sequence[Record]]) -> Table | None:
    """All settings side by side, where there are several."""
    if len(groups) < 2:
        return None
    caption = (
        "Mean test score over seeds ± half of its 95 % t interval, and in brackets the mean difference to uniform, paired by seed: ▲ above "
        "it or ▼ below it where the interval of the difference leaves out zero. Many comparisons are made here, and none is adjusted for."
    )
    return Table(caption, *overview(groups))


def _section(directory: Path, place: int, setting: Setting, records: Sequence[Record]) -> Section:
    table = summarise(records)
    stem = f"{place:02d}-" + re.sub(r"[^A-Za-z0-9_]+", "-", setting.task).strip("-")
    pictures = []
    for name, caption, figure in _figures(directory, table, records):
        image = io.BytesIO()
        figure.savefig(image, format="png", bbox_inches="tight")
        _replace(directory / "figures" / f"{stem}-{name}.png", image.getvalue())
        pictures.append(Picture(f"{stem}-{name}.png", caption, base64.b64encode(image.getvalue()).decode()))
    config = [{name: value for name, value in record["config"].items() if name != "command"} for record in records]
    results, values = _results(table, records[0]["metric"]), _values("Values used", config)
    return Section(str(setting), reading(table, records), results, pictures, _costs(table), values)


def _figures(directory: Path, table: pd.DataFrame, records: Sequence[Record]) -> Iterator[tuple[str, str, Figure]]:
    """File name, caption and figure."""
    if table["test"].notna().any():
        yield "scores", "Test score by policy, mean and 95 % t interval over seeds.", scores_figure(table, records[0]["metric"])
    if any(record["curve"] for record in records):
        yield "curves", "Learning curves on the validation split, mean and 95 % t interval over seeds.", learning_curves(records)
    for row in table.itertuples():
        if row.access in USES_REWARD_LABELS or base_name(row.policy) == "oracle":
            runs = sorted((r for r in records if r["policy"] == row.policy), key=lambda record: int(record["seed"]))
            traces = ((run, directory / "traces" / f"{run['trial']}.parquet") for run in runs)
            for run, path in [found for found in traces if found[1].is_file()][:1]:
                caption = f"Whom {row.policy} selects for each group of examples, seed {run['seed']}."
                yield f"selection-{run['trial']}", caption, selection_by_group_figure(read_trace(path))


def _results(table: pd.DataFrame, metric: str) -> Table:
    scores = (f"test {metric} [95 %]", "validation", "gap recovered [95 %]", "reward − validation", "test − best rival")
    rows, access = [], ""
    for row in table.itertuples():
        versus = "rival" if row.rival else difference(row) if row.pairs else NOTHING
        test, gap = interval(row.test, row.test_low, row.test_high), interval(row.gap, row.gap_low, row.gap_high)
        diverged = f" ({row.diverged} diverged)" if row.diverged else ""
        first = "" if row.access == access else row.access
        rows.append((first, row.policy, f"{row.n}{diverged}", test, number(row.validation), gap, number(row.overfit, "+"), versus))
        access = row.access
    caption = (
        "Means over seeds with Student's t interval. Gap recovered: 0 is uniform, 1 is oracle. Best rival: highest validation among the "
        "baselines given the same labels; differences are paired by seed, p is Holm-adjusted over this table."
    )
    return Table(caption, ("access", "policy", "n", *scores), rows)


def _costs(table: pd.DataFrame) -> Table:
    columns = {
        "wall_s": "wall seconds", "peak_rss_mb": "peak memory (MB)", "student_forward_examples": "student forward examples",
        "reward_forward_examples": "reward forward examples", "teacher_forward_examples": "teacher forward examples",
    }  # fmt: skip
    rows = [(row["policy"], *(_count(row[name]) for name in columns)) for _, row in table.iterrows()]
    return Table("Medians over seeds, one trial each.", ("policy", *columns.values()), rows)


def _values(caption: str, dicts: Sequence[Mapping[str, Any]]) -> Table:
    """Every entry with the distinct values it takes."""
    names = sorted({name for entries in dicts for name in entries})
    rows = [(name, "; ".join(_distinct(_text(entries[name]) for entries in dicts if name in entries))) for name in names]
    return Table(caption, ("name", "value"), rows)


def _count(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _distinct(values: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    os.replace(partial, path)
