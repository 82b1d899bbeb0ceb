"""Make an empty figure with panels. In: titles and sizes in inches. Out: a matplotlib `Figure` without a window, and its axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kd_env.analysis.figures import COLOURS, DASHES, FONT, LEGEND

MOST_COLUMNS = 4
REFERENCE: dict[str, Any] = {"color": "#BBBBBB", "linewidth": 1, "linestyle": (0, (2, 2))}
"""Style of a line to compare with."""


def panels(titles: Sequence[str], width: float, height: float, x: str = "", y: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per title, at most four in a row, with common labels of the axes.

    Args:
        titles: titles of the panels; an empty title takes no space.
        width: width of a panel.
        height: height of a panel.
        x: label below all panels.
        y: label beside all panels.
    """
    columns = min(MOST_COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(width * columns, height * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[len(titles) :]:
        axes.remove()
    for axes, title in zip(grid, titles, strict=False):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=FONT, color="#999999", labelbottom=True)
        axes.set_axisbelow(True)
        axes.set_title(title, fontsize=FONT + 0.5, loc="left")
    figure.supxlabel(x, fontsize=FONT + 0.5)
    figure.supylabel(y, fontsize=FONT + 0.5)
    return figure, list(grid[: len(titles)])


def line_style(number: int) -> dict[str, Any]:
    """Return the colour and dash pattern of a line. After eight lines the dash pattern changes too."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def legend(figure: Figure, title: str, labels: Sequence[str], styles: Sequence[dict[str, Any]]) -> None:
    """Draw a legend to the right of the panels."""
    keys = [Line2D([], [], label=label, **style) for label, style in zip(labels, styles, strict=True)]
    figure.legend(handles=keys, loc="outside right center", title=title, **LEGEND)
