"""Draw figures. In: records of one setting, its summary table, or traces. Out: a matplotlib `Figure` without a window.

A policy has the same colour on all figures (:mod:`kd_env.analysis.palette`). What belongs to a policy has the `gid` ``policy:NAME``, so
that a page can find it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kd_env.analysis.canvas import BEHIND_TEXT, FAINT, FONT, LETTER, RULE, LineEnd, blank_figure, canvas, name_lines, policy_line
from kd_env.analysis.intervals import standard_error, t_quantile
from kd_env.analysis.palette import COLOURS, Style, policy_styles
from kd_env.analysis.seeds import require_one_setting
from kd_env.analysis.selection_map import SelectionMap, mean_over_seeds, selection_map
from kd_env.analysis.selection_regret import BestTeachers, regret_curve

MAX_BANDS = 12
MAP_WIDTH = 1.08
Styles = Mapping[str, Style]


def learning_curves(records: Sequence[Mapping[str, Any]], styles: Styles | None = None) -> Figure:
    """Draw the validation score over the updates: the mean over seeds of each policy of one setting, with the name at the end of the line.

    The 95 % t interval is drawn for three seeds or more, since with two seeds it is wider than the range of the scores and hides the lines,
    and for at most twelve policies, since more bands hide each other. Points without a validation score are left out.

    Raises:
        InputError: a policy has two records with one seed, because they are of two settings.
    """
    require_one_setting(records)
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for point in record["curve"]:
            if _is_score(point.get("validation")):
                points[record["policy"]][point["update"]].append(point["validation"])
    styles = styles or policy_styles(points)
    height = max(3.4, 0.75 + 0.17 * len(points))
    names = LETTER * max((len(policy) for policy in points), default=0) + 0.35
    figure, axes = canvas(0.55, 2.9, names, 0.15, height - 0.6, 0.45)
    scores = [v for policy in points.values() for values in policy.values() for v in values]
    last = max((update for policy in points.values() for update in policy), default=1)
    if scores:  # the axis covers the scores, not the intervals, which are far wider with few seeds
        margin = 0.04 * (max(scores) - min(scores)) or 0.02
        axes.set_ylim(min(scores) - margin, max(scores) + margin)
    axes.set_xlim(-0.01 * last, 1.01 * last)
    ends = []
    for policy in sorted(points):
        style, updates = styles[policy], sorted(points[policy])
        values = [np.asarray(points[policy][update]) for update in updates]
        mean = np.array([v.mean() for v in values])
        half = np.array([standard_error(v) * t_quantile(0.975, len(v) - 1) if len(v) > 2 else 0.0 for v in values])
        if len(points) <= MAX_BANDS and half.any():
            edge = np.concatenate([np.column_stack([updates, mean - half]), np.column_stack([updates, mean + half])[::-1]])
            axes.add_collection(PolyCollection([edge], facecolors=[to_rgba(style.colour, 0.12)], linewidths=0, gid=f"policy:{policy}"))
        axes.add_line(policy_line(updates, mean, style, policy))
        ends.append(LineEnd(float(mean[-1]), updates[-1], policy, style))
    axes.set(xlabel="student updates", ylabel=f"validation {_metric(records)}, mean over seeds")
    name_lines(axes, ends)
    return figure


def has_bands(records: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the learning curves of these records show intervals."""
    runs: dict[str, int] = defaultdict(int)
    for record in records:
        runs[record["policy"]] += has_scores(record["curve"])
    return len(runs) <= MAX_BANDS and max(runs.values(), default=0) > 2


def has_scores(curve: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a point of a curve has a validation score."""
    return any(_is_score(point.get("validation")) for point in curve)


def _is_score(validation: float | None) -> bool:
    return validation is not None and math.isfinite(validation)


def selection_by_group_figure(
    traces: pd.DataFrame | SelectionMap | Sequence[pd.DataFrame], bins: int = 16, colour: str = COLOURS[0], policy: str = ""
) -> Figure:
    """Draw the mean weight of each teacher over the updates as a map: one panel per group of examples, one row per teacher.

    A cell is the darker, the larger the weight; empty is 0 and the full colour is 1. The number to the right of a row is its mean.

    Args:
        traces: a trace, the traces of a policy's seeds, which are averaged, or their mean map.
        bins: number of intervals of updates.
        colour: the colour of the policy.
        policy: name of the policy, for the `gid` of its panels.

    Raises:
        InputError: ``bins`` is below 1, or there is no trace.
    """
    if not isinstance(traces, SelectionMap):
        traces = mean_over_seeds([selection_map(trace, bins) for trace in ([traces] if isinstance(traces, pd.DataFrame) else traces)])
    weights, groups, teachers, updates, _ = traces
    columns, left, row = min(2, len(groups)), LETTER * max(map(len, teachers)) + 0.12, 0.16
    rows, panel = math.ceil(len(groups) / columns), 0.16 * len(teachers) + 0.3
    width, height = left + 1.47 * columns + 0.03, panel * rows + 0.4
    figure = blank_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))  # one axes in inches for all panels: an axes per panel takes ten times as long
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    size = MAP_WIDTH / weights.shape[2]
    frames, cells, faces = [], [], []
    for position, (name, of_group) in enumerate(zip(groups, weights, strict=True)):
        x, y = left + 1.47 * (position % columns), panel * (position // columns) + 0.22
        frames.append(_box(x, y, MAP_WIDTH, row * len(teachers)))
        taught = [(k, t) for k, t in np.ndindex(of_group.shape) if of_group[k, t] > 0.005]
        cells += [_box(x + t * size, y + k * row, size, row) for k, t in taught]
        faces += [to_rgba(colour, round(float(of_group[k, t]), 2)) for k, t in taught]
        axes.text(x, y - 0.03, name, fontsize=FONT, va="bottom")
        for k, (teacher, mean) in enumerate(zip(teachers, np.nanmean(of_group, axis=1), strict=True)):
            middle = y + (k + 0.5) * row
            axes.text(x + MAP_WIDTH + 0.04, middle, f"{mean:.2f}", fontsize=FONT, va="center", color=FAINT)
            if position % columns == 0:
                axes.text(x - 0.05, middle, teacher, fontsize=FONT, va="center", ha="right")
        if position + columns >= len(groups):
            below = y + row * len(teachers) + 0.03
            axes.text(x, below, f"{updates[0]:.0f}", fontsize=FONT, va="top", color=FAINT)
            axes.text(x + MAP_WIDTH, below, f"{updates[-1]:.0f}", fontsize=FONT, va="top", ha="right", color=FAINT)
    axes.add_collection(PolyCollection(cells, facecolors=faces, linewidths=0, antialiaseds=False, gid=f"policy:{policy}"), autolim=False)
    axes.add_collection(PolyCollection(frames, facecolors="none", edgecolors=RULE, linewidths=0.8), autolim=False)
    axes.text(left + MAP_WIDTH / 2, height - 0.03, "student updates", fontsize=FONT, ha="center", va="bottom", color=FAINT)
    return figure


def _box(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def regret_figure(
    traces: Mapping[str, Sequence[pd.DataFrame]], answer: BestTeachers, bins: int = 20, styles: Styles | None = None
) -> Figure:
    """Draw the regret of selection over the updates: the mean over the traces of each policy, with the name at the end of the line.

    Args:
        traces: traces of each policy, one for each seed, all of the pool and budget of ``answer``.
        answer: the best teachers of the pool. A vertical line marks the update at which they change.
        bins: number of intervals of updates.
        styles: style of each policy.
    """
    styles = styles or policy_styles(traces)
    names = LETTER * max((len(policy) for policy in traces), default=0) + 0.35
    height = max(3.4, 0.75 + 0.17 * len(traces))
    figure, axes = canvas(0.55, 2.9, names, 0.15, height - 0.6, 0.45)
    if answer.change is not None:
        axes.axvline(answer.change, color=FAINT, linewidth=1, linestyle=":")
    axes.set(xlabel="student updates", ylabel="regret: 1 - weight on the best teacher", ylim=(-0.02, 1.02))
    means = {
        policy: pd.concat([regret_curve(trace, answer, bins) for trace in of_policy], axis=1).mean(axis=1)
        for policy, of_policy in sorted(traces.items())
    }
    last = max((float(mean.index[-1]) for mean in means.values()), default=1.0)
    axes.set_xlim(-0.01 * last, 1.01 * last)
    ends = []
    for policy, mean in means.items():
        axes.add_line(policy_line(mean.index.to_numpy(), mean.to_numpy(), styles[policy], policy))
        ends.append(LineEnd(float(mean.iloc[-1]), float(mean.index[-1]), policy, styles[policy]))
    name_lines(axes, ends)
    return figure


def scores_figure(rows: pd.DataFrame, metric: str = "score", styles: Styles | None = None) -> Figure:
    """Draw the test score of each policy, the highest first: mean and 95 % t interval, lines at `uniform` (dotted) and `oracle` (dashed).

    A policy with one seed has no interval. The name stands above the interval, so that long names leave room for the scores, with the
    access class to its right.
    """
    rows = rows[rows["test"].notna()].sort_values("test", kind="stable").reset_index(drop=True)
    styles = styles or policy_styles(rows["policy"])
    labels = [f"{row.policy} (n={row.n})" for row in rows.itertuples()]
    width = max([3.4, *(LETTER * len(label) for label in labels)])
    figure, axes = canvas(0.15, width, 0.15, 0.2, 0.1 + 0.27 * len(rows), 0.45)
    ends = np.array([*rows["test"], *rows["test_low"].dropna(), *rows["test_high"].dropna()])
    low, high = (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 1.0)
    margin = 0.03 * (high - low) or 0.02
    if len(rows) and rows["test"].min() >= 0 and rows["test"].max() <= 1:  # an interval over two seeds may exceed the range of the metric
        low, high = max(low, -0.01), min(high, 1.01)
    axes.set_xlim(low - margin, high + margin)
    for name, dashes in (("uniform", ":"), ("oracle", "--")):
        for score in rows.loc[rows["policy"] == name, "test"]:
            axes.axvline(score, color=FAINT, linewidth=1, linestyle=dashes, zorder=0)
    for position, row in rows.iterrows():
        policy, style, gid = row["policy"], styles[row["policy"]], f"policy:{row['policy']}"
        axes.axhline(position, color=RULE, linewidth=0.5, alpha=0.6, zorder=0)
        if not math.isnan(row["test_low"]):
            axes.add_line(policy_line([row["test_low"], row["test_high"]], [position, position], style._replace(dashes="-"), policy, 2.2))
        axes.add_line(Line2D([row["test"]], [position], color=style.colour, marker=style.marker, markersize=5.5, gid=gid))
        text: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": FONT, "va": "bottom", "gid": gid, "bbox": BEHIND_TEXT}
        axes.text(0.0, position + 0.17, labels[position], **text)
        if len(labels[position]) + len(row["access"]) < width / LETTER - 2:
            axes.text(1.0, position + 0.17, row["access"], ha="right", color=FAINT, **text)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.4, len(rows) - 0.15)
    axes.set_xlabel(f"test {metric}, mean and 95 % interval over seeds")
    return figure


def _metric(records: Sequence[Mapping[str, Any]]) -> str:
    return str(records[0]["metric"]) if records else "score"
