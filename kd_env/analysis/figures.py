"""Draw figures. In: records of one setting, its summary table, or a trace. Out: a matplotlib `Figure` without a window.

The colours are from Okabe and Ito; colour-blind readers can distinguish them. After eight lines, the dash pattern changes too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from kd_env.analysis.selection_regret import BestTeachers, regret_curve
from kd_env.analysis.traces import selection_by_group

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A")
DASHES = ("-", "--", ":", "-.")
ACCESS_COLOURS = {
    "nothing": "#8A8A8A", "teacher outputs": "#56B4E9", "student outputs": "#0072B2", "train labels": "#009E73", "gradient": "#882255",
    "reward scalar": "#E69F00", "reward gradient": "#D55E00", "reward labels": "#CC79A7", "privileged": "#000000",
}  # fmt: skip
FONT = 8.5
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": FONT, "title_fontsize": FONT, "alignment": "left"}


def learning_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the validation score over the updates: the mean over seeds of each policy of one setting, with the name at the end of the line.

    The 95 % t interval is drawn for three seeds or more. With two seeds it is wider than the range of the scores and hides the lines.
    """
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for point in record["curve"]:
            if point["validation"] is not None:
                points[record["policy"]][point["update"]].append(point["validation"])
    figure, axes = _canvas(8.5, max(3.6, 0.7 + 0.19 * len(points)), [0.08, 0.13, 0.62, 0.83])
    ends: list[LineEnd] = []
    for index, policy in enumerate(sorted(points)):
        colour, dashes, updates = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)], sorted(points[policy])
        values = [np.asarray(points[policy][update]) for update in updates]
        mean = np.array([v.mean() for v in values])
        half = np.array([stats.sem(v) * stats.t.ppf(0.975, len(v) - 1) if len(v) > 2 else 0.0 for v in values])
        axes.plot(updates, mean, dashes, color=colour, linewidth=1.6)
        axes.fill_between(updates, mean - half, mean + half, color=colour, alpha=0.12, linewidth=0)
        ends.append(LineEnd(float(mean[-1]), updates[-1], policy, colour, dashes))
    scores = [v for policy in points.values() for values in policy.values() for v in values]
    if scores:  # the axis covers the scores, not the intervals, which are far wider with few seeds
        margin = 0.04 * (max(scores) - min(scores)) or 0.02
        axes.set_ylim(min(scores) - margin, max(scores) + margin)
    axes.set(xlabel="student updates", ylabel=f"validation {_metric(records)} (mean, 95 % interval over seeds)")
    axes.margins(x=0.01)
    _name_lines(axes, ends)
    return figure


def selection_by_group_figure(trace: pd.DataFrame, bins: int = 20) -> Figure:
    """Draw the mean weight of each teacher over the updates, with one panel per group of examples (one panel if the task has no groups)."""
    means, teachers = selection_by_group(trace, bins), trace.attrs["teacher_names"]
    names = dict(enumerate(trace.attrs["group_names"])) | {-1: "group unknown" if trace.attrs["group_names"] else "all examples"}
    groups = sorted(means["group"].unique(), key=lambda group: (group < 0, group))
    columns = min(4, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(max(5.0, 2.3 * columns + 1.6), 1.9 * rows + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, group in zip(panels, groups, strict=False):
        axes.axhline(1 / len(teachers), color="#BBBBBB", linewidth=1, linestyle=(0, (2, 2)))
        for teacher, line in means[means["group"] == group].groupby("teacher"):
            axes.plot(line["update"], line["weight"], color=COLOURS[teacher % len(COLOURS)], linestyle=DASHES[teacher // len(COLOURS) % 4])
        axes.set_ylim(-0.02, 1.02)
        axes.set_title(names.get(group, f"group {group}"), fontsize=FONT + 0.5, loc="left")
        _plain_axes(axes)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    figure.supxlabel("student updates", fontsize=FONT + 0.5)
    figure.supylabel("mean weight", fontsize=FONT + 0.5)
    keys = [_key(n, COLOURS[k % len(COLOURS)], linestyle=DASHES[k // len(COLOURS) % 4]) for k, n in enumerate(teachers)]
    keys.append(_key("uniform, 1/K", "#BBBBBB", linestyle=(0, (2, 2))))
    figure.legend(handles=keys, loc="outside right center", title="teacher", **LEGEND)
    return figure


def regret_figure(traces: Mapping[str, Sequence[pd.DataFrame]], answer: BestTeachers, bins: int = 20) -> Figure:
    """Draw the regret of selection over the updates: the mean over the traces of each policy, with the name at the end of the line.

    Args:
        traces: traces of each policy, one for each seed, all of the pool and budget of ``answer``.
        answer: the best teachers of the pool. A vertical line marks the update at which they change.
    """
    figure, axes = _canvas(8.5, max(3.6, 0.7 + 0.19 * len(traces)), [0.08, 0.13, 0.62, 0.83])
    if answer.change is not None:
        axes.axvline(answer.change, color="#777777", linewidth=1, linestyle=":")
    ends: list[LineEnd] = []
    for index, (policy, of_policy) in enumerate(sorted(traces.items())):
        colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
        mean = pd.concat([regret_curve(trace, answer, bins) for trace in of_policy], axis=1).mean(axis=1)
        axes.plot(mean.index, mean, dashes, color=colour, linewidth=1.6)
        ends.append(LineEnd(float(mean.iloc[-1]), float(mean.index[-1]), policy, colour, dashes))
    axes.set(xlabel="student updates", ylabel="regret: 1 - weight on the best teacher", ylim=(-0.02, 1.02))
    axes.margins(x=0.01)
    _name_lines(axes, ends)
    return figure


def scores_figure(rows: pd.DataFrame, metric: str = "score") -> Figure:
    """Draw the test score of each policy: mean and 95 % t interval, coloured by access class, with lines at `uniform` and `oracle`."""
    rows = rows[rows["test"].notna()].iloc[::-1].reset_index(drop=True)
    figure, axes = _canvas(8.5, 1.5 + 0.24 * len(rows), None)
    for name, style in (("uniform", ":"), ("oracle", "--")):
        for score in rows.loc[rows["policy"] == name, "test"]:
            axes.axvline(score, color="#777777", linewidth=1, linestyle=style, zorder=0)
            axes.text(score, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=FONT)
    for place, row in rows.iterrows():
        colour = ACCESS_COLOURS.get(row["access"].split(" + ")[-1], "#8A8A8A")
        axes.plot([row["test_low"], row["test_high"]], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot(row["test"], place, "o", color=colour, markersize=6)
    if len(rows) and rows["test"].min() >= 0 and rows["test"].max() <= 1:  # an interval over two seeds may exceed the range of the metric
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, -0.01), min(right, 1.01))
    axes.set_yticks(range(len(rows)), [f"{row.policy}  (n={row.n})" for row in rows.itertuples()])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel(f"test {metric} (mean and 95 % interval over seeds)")
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    keys = [
        _key(access, colour, marker="o", linestyle="-")
        for access, colour in ACCESS_COLOURS.items()
        if access in {name.split(" + ")[-1] for name in rows["access"]}
    ]
    figure.legend(handles=keys, loc="outside right upper", title="access", **LEGEND)
    return figure


def _canvas(width: float, height: float, place: list[float] | None) -> tuple[Figure, Axes]:
    """Return a figure with one plain axes, at `place` (fractions of the figure) or in matplotlib's default place."""
    figure = Figure(figsize=(width, height), dpi=100, layout=None if place else "constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((place[0], place[1], place[2], place[3])) if place else figure.add_subplot()
    _plain_axes(axes)
    return figure, axes


def _plain_axes(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=FONT, color="#999999")
    axes.xaxis.label.set_fontsize(FONT + 0.5)
    axes.yaxis.label.set_fontsize(FONT + 0.5)
    axes.set_axisbelow(True)


class LineEnd(NamedTuple):
    """The end of a line, and the style of the line."""

    height: float
    update: float
    name: str
    colour: str
    dashes: str


def _name_lines(axes: Axes, ends: list[LineEnd]) -> None:
    """Write the name of each line to the right of the axes at the height of its end. Names that would overlap are moved apart."""
    low, high = axes.get_ylim()
    step = (high - low) * FONT * 1.25 / (axes.get_window_extent().height * 72 / axes.figure.dpi)
    ends = sorted(ends)
    heights: list[float] = []
    for end in ends:
        heights.append(max(end.height, heights[-1] + step) if heights else end.height)
    ceiling = high
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - step
    left, right = axes.get_xlim()
    for height, end in zip(heights, ends, strict=True):
        path = [end.update, right, right + 0.04 * (right - left)], [end.height, end.height, height]
        axes.plot(*path, end.dashes, color=end.colour, linewidth=1, clip_on=False, scalex=False, scaley=False)
        axes.text(1.05, height, end.name, transform=axes.get_yaxis_transform(), color="#333333", fontsize=FONT, va="center")


def _key(label: str, colour: str, **style: Any) -> Line2D:
    return Line2D([], [], color=colour, label=label, **style)


def _metric(records: Sequence[Mapping[str, Any]]) -> str:
    return str(records[0]["metric"]) if records else "score"
