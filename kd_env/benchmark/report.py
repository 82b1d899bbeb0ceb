"""Write the report of a results folder. In: its records and traces. Out: report.md, report.html and figures/ in the same folder.

The HTML page contains its figures and needs no other file. Files are replaced as a whole, so a reader never sees a partial report.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from kd_env.analysis.figures import Styles
from kd_env.analysis.palette import COLOURS, DARK, policy_styles
from kd_env.benchmark.grouping import by_setting
from kd_env.benchmark.overview import column_names
from kd_env.benchmark.records import Record, read
from kd_env.benchmark.report_across import Across, compare_across
from kd_env.benchmark.report_page import across_page_table, cost_page_table, filters, overview_page_table, score_page_table
from kd_env.benchmark.report_paper import write_paper
from kd_env.benchmark.report_sections import (
    Section,
    Table,
    all_settings_table,
    as_text,
    costs_table,
    distinct,
    make_section,
    num_drawn,
    results_table,
    values_table,
)
from kd_env.benchmark.report_svg import page_svg
from kd_env.benchmark.report_tuned import tuned_table
from kd_env.paths import sweep, write_bytes
from kd_env.printable import markdown_text, printable

FIGURE = re.compile(r"00-(profiles|ranks)|\d{2,}-.+-(scores|curves|pairs|selection-.+)")
"""Names of the figures of reports, without the suffix."""


@dataclass(frozen=True)
class Report:
    """What report.md and report.html contain.

    Attributes:
        title, overview: first lines.
        all_settings: table of all settings, if there are several.
        across: comparison of the policies over all settings, if there are several.
        sections: a section for each setting.
        commands: commands that made the records.
        versions: versions of the packages.
        styles: style of each policy on all figures.
    """

    title: str
    overview: str
    all_settings: Table | None
    across: Across | None
    sections: Sequence[Section]
    commands: Sequence[str]
    versions: Table
    styles: Styles


def write_report(directory: Path | str, paper: bool = False) -> Path:
    """Write the report of a results folder and return the path of its report.html.

    Args:
        directory: the results folder.
        paper: whether to write paper/ too: figures as PDF and SVG, tables in LaTeX and a paragraph on the methods.

    Raises:
        InputError: the folder has no records, or a record or trace cannot be read.
    """
    directory = Path(directory)
    report = make_report(directory, read(directory))
    for folder in (directory, directory / "figures", directory / "paper"):
        sweep(folder)
    plots = [*(report.across.plots if report.across else ()), *(plot for section in report.sections for plot in section.plots.plots)]
    figures = {plot.name: plot.draw() for plot in plots}
    for path in (*(directory / "figures").glob("*.png"), *(directory / "paper").glob("*.svg"), *(directory / "paper").glob("*.pdf")):
        if FIGURE.fullmatch(path.stem) and path.stem not in figures:
            path.unlink()  # of a policy or a setting that is no longer in the records
    for name, figure in figures.items():
        _write(directory / "figures" / f"{name}.png", _png(figure))
    drawings = {plot.name: page_svg(figures[plot.name], plot.name, plot.caption) for plot in plots}
    if paper:
        write_paper(directory / "paper", report.sections, figures, _write)
    _write(directory / "report.md", markdown(report).encode())
    _write(directory / "report.html", _page(report, drawings).encode())
    return directory / "report.html"


def make_report(directory: Path, records: Sequence[Record]) -> Report:
    """Return the content of the report; figures are not drawn yet.

    Raises:
        InputError: a trace cannot be read.
    """
    groups = by_setting(records)
    styles = policy_styles(record["policy"] for record in records)
    drawn = num_drawn(len(records))
    sections = [make_section(directory, index, drawn, *group, styles) for index, group in enumerate(groups.items(), start=1)]
    return Report(
        "kd-env: " + ", ".join(distinct(record["suite"] or record["task"] for record in records)),
        f"Trials: {len(records)}. Policies: {len(styles)}. Settings: {len(sections)}.",
        all_settings_table(groups),
        compare_across(groups, styles),
        sections,
        distinct(as_text(record["config"]["command"]) for record in records if record["config"].get("command")),
        values_table("Versions and devices", [record["versions"] | {"device": record["device"]} for record in records]),
        styles,
    )


def markdown(report: Report) -> str:
    """Return the text of report.md."""
    sections = [(section, results_table(section), costs_table(section.table), tuned_table(section)) for section in report.sections]
    return _render("report.md", report, {"tables": sections})


def _page(report: Report, drawings: Mapping[str, str]) -> str:
    names = column_names([section.setting for section in report.sections])
    sections = [
        (section, score_page_table(section, report.styles), cost_page_table(section, report.styles), name, tuned_table(section))
        for section, name in zip(report.sections, names, strict=True)
    ]
    overview = report.all_settings and overview_page_table(report.all_settings, report.sections, report.styles)
    across = report.across and across_page_table(report.across.table, report.across.access, report.styles)
    colours = list(zip(COLOURS, DARK, strict=True))
    return _render(
        "report.html",
        report,
        {
            "tables": sections,
            "all_settings": overview,
            "across_table": across,
            "drawings": drawings,
            "filters": filters(report.sections),
            "colours": colours,
        },
    )


def _render(name: str, report: Report, more: Mapping[str, Any]) -> str:
    return printable(_engine(name.endswith("html")).get_template(f"{name}.jinja").render({**vars(report), **more}))


@functools.cache
def _engine(html: bool) -> Environment:
    """Return the engine of HTML, which escapes values, or of Markdown. It keeps compiled templates."""
    engine = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    engine.filters["md"] = markdown_text
    return engine


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
