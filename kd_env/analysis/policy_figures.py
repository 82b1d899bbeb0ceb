"""Draw what a policy selects. In: tables of this package, averaged over seeds. Out: a matplotlib `Figure` without a window.

The band around a line is the 95 % interval over seeds. The axis is that of the means, because with few seeds the interval can be wider than
the range of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kd_env.analysis.canvas import REFERENCE, legend, line_style, panels
from kd_env.printable import printable

LEVEL_NAMES = {2: ("easy", "hard"), 3: ("easy", "medium", "hard")}
ENTROPY_MARKERS: dict[str, dict[str, Any]] = {
    "marginal": {"marker": "o", "color": "#0072B2"},
    "given_group": {"marker": "s", "color": "#E69F00"},
    "given_example": {"marker": "D", "color": "#D55E00"},
    "given_decision": {"marker": "|", "color": "#000000"},
}


def selection_figure(means: pd.DataFrame, teachers: Sequence[str], names: Sequence[str] = (), panel: str = "group") -> Figure:
    """Draw the mean weight of each teacher over the updates, with one panel per group or per level of difficulty.

    Args:
        means: means over seeds of :func:`~kd_env.analysis.traces.selection_by_group` or
            :func:`~kd_env.analysis.difficulty.selection_by_difficulty`, with interval.
        teachers: names of the teachers.
        names: names of the groups or levels.
        panel: column of the panels, ``group`` or ``level``.
    """
    values = sorted(means[panel].unique())
    known = dict(enumerate(names or (LEVEL_NAMES.get(len(values), ()) if panel == "level" else ())))
    titles = [known.get(value, "all examples" if value < 0 else f"{panel} {value}") for value in values]
    figure, axes_of = panels(titles, 2.4, 2.0, "student updates", "mean weight")
    for axes, value in zip(axes_of, values, strict=True):
        axes.axhline(1 / len(teachers), **REFERENCE)
        for teacher, line in means[means[panel] == value].groupby("teacher"):
            _band(axes, line, "weight", int(teacher))
        axes.set_ylim(-0.02, 1.02)
    styles = [*(line_style(k) for k in range(len(teachers))), REFERENCE]
    legend(figure, "teacher", [*teachers, "uniform, 1/K"], styles)
    return figure


def agreement_curves(means: pd.DataFrame, with_: str = "oracle", num_teachers: int | None = None) -> Figure:
    """Draw the agreement with a reference over the updates, with one line per policy.

    Args:
        means: means over seeds with the columns policy, update, agreement, low and high, see :func:`kd_env.analysis.agreement.agreement`.
        with_: name of the reference.
        num_teachers: draws a line at 1/K.
    """
    policies = list(dict.fromkeys(means["policy"]))
    figure, (axes,) = panels([""], 6.5, 3.0, "student updates", f"agreement with {with_}")
    if num_teachers:
        axes.axhline(1 / num_teachers, **REFERENCE)
    for number, policy in enumerate(policies):
        _band(axes, means[means["policy"] == policy], "agreement", number)
    axes.set_ylim(-0.02, 1.02)
    chance = ["chance, 1/K"] if num_teachers else []
    legend(figure, "policy", [*policies, *chance], [*(line_style(n) for n in range(len(policies))), *([REFERENCE] if chance else [])])
    return figure


def entropy_figure(table: pd.DataFrame) -> Figure:
    """Draw the entropies of each policy's selection, averaged over seeds, with one row per policy.

    The bar reaches from the entropy given the example to the marginal entropy. Its length is the mutual information between example and
    teacher. The grey tick is where it would begin if the examples were exchanged at random.

    Args:
        table: :func:`kd_env.analysis.entropy.entropies` of several policies and seeds, with the columns policy and seed.
    """
    means = table.drop(columns="seed").groupby("policy", sort=False).mean().iloc[::-1]
    figure, (axes,) = panels([""], 6.5, 0.9 + 0.28 * len(means), "entropy of the teacher / ln K (mean over seeds)")
    rows = np.arange(len(means))
    axes.hlines(rows, means["given_example"], means["marginal"], color="#DDDDDD", linewidth=6, zorder=0)
    exchanged = means["marginal"] - means["chance_information"]
    axes.plot(exchanged, rows, "|", color="#999999", markersize=14, zorder=1)
    for name, style in ENTROPY_MARKERS.items():
        axes.plot(means[name], rows, linestyle="", markersize=11 if style["marker"] == "|" else 6, **style)
    axes.set_yticks(rows, [printable(name) for name in means.index])
    axes.set_ylim(-0.6, len(means) - 0.4)
    axes.set_xlim(-0.04, 1.04)
    labels = [name.replace("_", " ") for name in ENTROPY_MARKERS]
    styles = [{"linestyle": "", "markersize": 6, **style} for style in ENTROPY_MARKERS.values()]
    legend(figure, "entropy", [*labels, "exchanged examples"], [*styles, {"linestyle": "", "marker": "|", "color": "#999999"}])
    return figure


def score_regret_figure(means: pd.DataFrame, names: Sequence[str] = (), unit: str = "score") -> Figure:
    """Draw the regret of each policy with its 95 % interval over seeds; with a column group, one panel per group.

    Args:
        means: means over seeds of :func:`kd_env.analysis.score_regret.score_regret` or :func:`~kd_env.analysis.score_regret.loss_regret`,
            with the columns policy, regret, low and high.
        names: names of the groups.
        unit: what the regret is measured in.
    """
    groups = sorted(means["group"].unique()) if "group" in means else [None]
    titles = ["" if group is None else dict(enumerate(names)).get(group, f"group {group}") for group in groups]
    policies = means.groupby("policy")["regret"].mean().sort_values(ascending=False).index.tolist()
    width = 6.5 if len(groups) == 1 else 2.4
    figure, axes_of = panels(titles, width, 0.9 + 0.28 * len(policies), f"regret ({unit}, mean and 95 % interval over seeds)")
    for axes, group in zip(axes_of, groups, strict=True):
        rows = (means if group is None else means[means["group"] == group]).set_index("policy").reindex(policies)
        axes.axvline(0, **REFERENCE)
        axes.hlines(range(len(rows)), rows["low"], rows["high"], color="#0072B2", linewidth=2.2)
        axes.plot(rows["regret"], range(len(rows)), "o", color="#0072B2", markersize=6)
        axes.set_yticks(range(len(policies)), [printable(policy) for policy in policies])
        axes.set_ylim(-0.6, len(policies) - 0.4)
    return figure


def _band(axes: Axes, line: pd.DataFrame, value: str, number: int) -> None:
    style = line_style(number)
    axes.plot(line["update"], line[value], linewidth=1.6, **style)
    axes.fill_between(line["update"].to_numpy(float), line["low"], line["high"], color=style["color"], alpha=0.12, linewidth=0)
