"""Draw what figures have in common. In: sizes in inches, titles, ends of lines. Out: plain axes, panels, lines with names, legends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from kd_env.analysis.palette import COLOURS, DASHES, Style
from kd_env.printable import printable

FONT = 8.5
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": FONT, "title_fontsize": FONT, "alignment": "left"}
LETTER = 0.56 * FONT / 72  # mean width of a letter in inches
FAINT, RULE = "#5c636d", "#c9ced6"
PAGE = "#ffffff"
BEHIND_TEXT = {"facecolor": PAGE, "edgecolor": "none", "pad": 0.5}
MAX_COLUMNS = 4
REFERENCE: dict[str, Any] = {"color": "#BBBBBB", "linewidth": 1, "linestyle": (0, (2, 2))}
"""Style of a line to compare with."""


class PlainFigure(Figure):
    """A figure that shows all text as it is: a ``$`` in a name does not begin mathematics, control characters are escaped."""

    def draw(self, renderer: Any) -> None:
        """Draw the figure with plain text."""
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_text(printable(text.get_text()))
        super().draw(renderer)


def blank_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    figure = PlainFigure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def canvas(left: float, width: float, right: float, top: float, height: float, bottom: float) -> tuple[Figure, Axes]:
    """Return a figure with one plain axes of `width` and `height` inches and the margins around it."""
    total, tall = left + width + right, top + height + bottom
    figure = blank_figure(total, tall)
    axes = figure.add_axes((left / total, bottom / tall, width / total, height / tall))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(FAINT)
    axes.tick_params(labelsize=FONT, color=FAINT)
    axes.xaxis.label.set_fontsize(FONT)
    axes.yaxis.label.set_fontsize(FONT)
    axes.set_axisbelow(True)
    return figure, axes


def panels(titles: Sequence[str], width: float, height: float, x: str = "", y: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per title, at most four in a row, with common labels of the axes.

    Args:
        titles: titles of the panels; an empty title takes no space.
        width: width of a panel.
        height: height of a panel.
        x: label below all panels.
        y: label beside all panels.
    """
    columns = min(MAX_COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = PlainFigure(figsize=(width * columns, height * rows), dpi=100, layout="constrained")
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


def policy_line(x: Sequence[float], y: Any, style: Style, policy: str, width: float = 1.6) -> Line2D:
    """Return a line in the style of a policy, not yet part of an axes."""
    line = Line2D(x, y, color=style.colour, linestyle=style.dashes, linewidth=width, gid=f"policy:{policy}")
    line.set_solid_capstyle("round")
    return line


class LineEnd(NamedTuple):
    """The end of the line of a policy, and its style."""

    height: float
    update: float
    policy: str
    style: Style


def name_lines(axes: Axes, ends: list[LineEnd]) -> None:
    """Write the name of each line to the right of the axes at the height of its end. Names that would overlap are moved apart."""
    low, high = axes.get_ylim()
    step = (high - low) * FONT * 1.25 / (axes.get_window_extent().height * 72 / axes.figure.dpi)
    ends = sorted(ends, key=lambda end: (end.height, end.policy))
    heights: list[float] = []
    for end in ends:
        heights.append(max(end.height, heights[-1] + step) if heights else end.height)
    ceiling = high
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - step
    left, right = axes.get_xlim()
    for height, end in zip(heights, ends, strict=True):
        leader = policy_line(
            [end.update, right, right + 0.04 * (right - left)], [end.height, end.height, height], end.style, end.policy, 1.0
        )
        leader.set_clip_on(False)
        axes.add_line(leader)
        gid = f"policy:{end.policy}"
        axes.text(1.05, height, end.policy, transform=axes.get_yaxis_transform(), fontsize=FONT, va="center", gid=gid)
