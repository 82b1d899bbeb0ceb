"""Write what a paper needs. In: a report. Out: a folder with figures as PDF and SVG, tables in LaTeX, and the methods as text."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from kd_env.benchmark.report_latex import escape, overview_latex, scores_latex
from kd_env.benchmark.report_methods import methods
from kd_env.benchmark.report_sections import Section
from kd_env.benchmark.report_svg import figure_svg

TRUETYPE: Any = {"pdf.fonttype": 42}
"""Letters as TrueType, since publishers refuse Type 3."""


def paper_text(sections: Sequence[Section]) -> dict[str, str]:
    """Return the text files of the folder by name."""
    paragraphs = methods(sections)
    files = {f"{section.stem}-scores.tex": scores_latex(section) for section in sections}
    if len(sections) > 1:
        files["all-settings.tex"] = overview_latex(sections)
    files["methods.md"] = "\n\n".join(paragraphs) + "\n"
    files["methods.tex"] = "\n\n".join(escape(paragraph) for paragraph in paragraphs) + "\n"
    return files


def write_paper(directory: Path, sections: Sequence[Section], figures: Mapping[str, Figure], write: Callable[[Path, bytes], None]) -> None:
    """Write the folder.

    Args:
        directory: the folder.
        sections: sections of the report.
        figures: the drawn figures by name.
        write: writes a file.
    """
    for name, text in paper_text(sections).items():
        write(directory / name, text.encode())
    for name, figure in figures.items():
        write(directory / f"{name}.svg", figure_svg(figure).encode())
        write(directory / f"{name}.pdf", _pdf(figure))


def _pdf(figure: Figure) -> bytes:
    file = io.BytesIO()
    with matplotlib.rc_context(TRUETYPE):
        figure.savefig(file, format="pdf", metadata={"CreationDate": None})
    return file.getvalue()
