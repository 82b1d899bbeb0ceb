"""Draw comparisons of many policies. In: names and numbers. Out: a matplotlib `Figure` without a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kd_env.analysis.canvas import FAINT, FONT, LETTER, RULE, LineEnd, blank_figure, canvas, name_lines, policy_line
from kd_env.analysis.figures import Styles
from kd_env.analysis.palette import COLOURS

ABOVE, BELOW = to_rgba(COLOURS[0], 0.3), to_rgba(COLOURS[1], 0.3)


def performance_profiles(profiles: Mapping[str, npt.NDArray[np.float64]], thresholds: npt.NDArray[np.float64], styles: Styles) -> Figure:
    """Draw the share of runs above each score, one line per policy, with its name at the end of the line.

    Args:
        profiles: share of each policy, ``[thresholds]``.
        thresholds: scores.
        styles: style of each policy.
    """
    height = max(3.4, 0.75 + 0.17 * len(profiles))
    figure, axes = canvas(0.55, 2.9, LETTER * max(map(len, profiles)) + 0.35, 0.15, height - 0.6, 0.45)
    axes.set(xlabel="test score", ylabel="share of runs above it", ylim=(-0.02, 1.02), xlim=(float(thresholds[0]), float(thresholds[-1])))
    ends = []
    for policy, share in profiles.items():
        axes.add_line(policy_line(thresholds.tolist(), share, styles[policy], policy))
        last = int(np.flatnonzero(share > 0)[-1]) if share.any() else 0  # where the line leaves the axis
        ends.append(LineEnd(float(thresholds[last]), float(thresholds[last]), policy, styles[policy]))
    order = sorted(ends, key=lambda end: (end.height, end.policy))
    heights = np.linspace(0.02, 0.98, len(order)).tolist()
    name_lines(axes, [end._replace(height=height, update=float(thresholds[-1])) for end, height in zip(order, heights, strict=True)])
    return figure


def ranks_figure(ranks: Mapping[str, float], critical_difference: float | None, styles: Styles) -> Figure:
    """Draw the mean rank of each policy, the best first, with a bar of the critical difference around it.

    Two policies differ by the Nemenyi test where their bars do not overlap. Without a critical difference there are no bars.
    """
    order = sorted(ranks, key=lambda policy: (ranks[policy], policy))
    left = LETTER * max(map(len, order)) + 0.15
    figure, axes = canvas(left, 3.2, 0.15, 0.1, 0.1 + 0.2 * len(order), 0.45)
    half = 0.0 if critical_difference is None else critical_difference / 2
    for position, policy in enumerate(order):
        style, gid = styles[policy], f"policy:{policy}"
        axes.axhline(position, color=RULE, linewidth=0.5, alpha=0.6, zorder=0)
        if half:
            axes.add_line(
                policy_line([ranks[policy] - half, ranks[policy] + half], [position, position], style._replace(dashes="-"), policy, 2.2)
            )
        axes.add_line(Line2D([ranks[policy]], [position], color=style.colour, marker=style.marker, markersize=5.5, gid=gid))
        axes.text(-0.02, position, policy, transform=axes.get_yaxis_transform(), fontsize=FONT, va="center", ha="right", gid=gid)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(min(ranks.values()) - half - 0.3, max(ranks.values()) + half + 0.3)
    axes.set_xlabel("mean rank over settings (1 is best)")
    return figure


def pairs_figure(policies: Sequence[str], differences: npt.NDArray[np.float64], decided: npt.NDArray[np.bool_]) -> Figure:
    """Draw a table of all pairs: the difference of the row's policy to the column's in hundredths, coloured where it is decided.

    Args:
        policies: names of the P policies, the highest score first.
        differences: mean differences of score, ``[P, P]``; nan is left empty.
        decided: pairs of which one is significantly higher, ``[P, P]``.
    """
    cell, left = 0.36, LETTER * (max(map(len, policies)) + 4) + 0.1
    width, height = left + cell * len(policies) + 0.1, 0.3 + 0.24 * len(policies)
    figure = blank_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    boxes, colours = [], []
    for row, policy in enumerate(policies):
        y = 0.28 + 0.24 * row
        axes.text(left - 0.06, y + 0.12, f"{policy}  {row + 1}", fontsize=FONT, ha="right", va="center", gid=f"policy:{policy}")
        axes.text(left + cell * (row + 0.5), 0.14, str(row + 1), fontsize=FONT, ha="center", va="center", color=FAINT)
        for column in range(row + 1, len(policies)):  # the other half has the same numbers with the other sign
            value, x = differences[row, column], left + cell * column
            if not np.isfinite(value):
                continue
            axes.text(x + cell / 2, y + 0.12, f"{100 * value:+.1f}".replace("-", "−"), fontsize=FONT - 1.5, ha="center", va="center")
            if decided[row, column]:
                boxes.append([(x, y), (x + cell, y), (x + cell, y + 0.24), (x, y + 0.24)])
                colours.append(ABOVE if value > 0 else BELOW)
    axes.add_collection(PolyCollection(boxes, facecolors=colours, linewidths=0, zorder=0), autolim=False)
    return figure
