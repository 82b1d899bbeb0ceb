"""Draw how policies compare, and how credit compares with improvement. In: tables of this package. Out: a `Figure` without a window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from kd_env.analysis.canvas import FONT, LEGEND, REFERENCE, panels
from kd_env.analysis.compare import OUTCOMES
from kd_env.analysis.credit import binned
from kd_env.printable import printable

OUTCOME_COLOURS = ("#56B4E9", "#0072B2", "#D55E00", "#BBBBBB")


def agreement_figure(table: pd.DataFrame) -> Figure:
    """Draw the agreement of each policy (row) with each policy and rule (column), averaged over seeds.

    Args:
        table: see :func:`kd_env.analysis.agreement.agreement_table`.
    """
    rows, columns = list(dict.fromkeys(table["policy"])), list(dict.fromkeys(table["other"]))
    columns = [*(name for name in rows if name in columns), *(name for name in columns if name not in rows)]
    values = table.pivot(index="policy", columns="other", values="agreement").reindex(index=rows, columns=columns).to_numpy()
    figure, (axes,) = panels([""], 2.2 + 0.55 * len(columns), 1.6 + 0.36 * len(rows))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(~np.isnan(values)):
        colour = "white" if values[row, column] > 0.6 else "#222222"
        axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=FONT, color=colour)
    axes.set_xticks(range(len(columns)), [printable(name) for name in columns], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [printable(name) for name in rows])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def outcomes_figure(shares: pd.DataFrame, first: str, second: str, names: Sequence[str] = (), by: str = "group") -> Figure:
    """Draw who chose a right teacher: the share of decisions with each outcome, with one bar per group.

    Args:
        shares: see :func:`kd_env.analysis.compare.outcomes`.
        first: name of the first policy.
        second: name of the second policy.
        names: names of the groups.
        by: column of the bars; all decisions are one bar if it is missing.
    """
    bars = shares.assign(**{by: 0}) if by not in shares else shares
    wide = bars.pivot(index=by, columns="outcome", values="share").loc[:, list(OUTCOMES)].iloc[::-1]
    known = dict(enumerate(names)) if by in shares else {0: "all decisions"}
    figure, (axes,) = panels([""], 7.0, 1.2 + 0.34 * len(wide), "share of decisions")
    left = np.zeros(len(wide))
    for outcome, colour in zip(OUTCOMES, OUTCOME_COLOURS, strict=True):
        axes.barh(range(len(wide)), wide[outcome], left=left, color=colour, height=0.7)
        left += wide[outcome].to_numpy()
    axes.set_yticks(range(len(wide)), [printable(known.get(value, f"{by} {value}")) for value in wide.index])
    axes.set_xlim(0, 1)
    labels = [outcome.replace("first", first).replace("second", second) for outcome in OUTCOMES]
    keys = [Patch(color=colour, label=label) for colour, label in zip(OUTCOME_COLOURS, labels, strict=True)]
    figure.legend(handles=keys, loc="outside upper center", ncols=len(keys), **LEGEND)
    return figure


def credit_figure(table: pd.DataFrame, x: str = "credit", y: str = "effect", bins: int = 10, central: float = 0.96) -> Figure:
    """Draw one column against another, as points, with the medians of equally large parts as a line.

    Args:
        table: see :func:`kd_env.analysis.credit.credit_of_updates` and :func:`~kd_env.analysis.credit.credit_of_teachers`.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        bins: number of parts.
        central: part of the rows, by either column, that the axes cover; a few rows far out would hide all others.
    """
    figure, (axes,) = panels([""], 5.0, 3.4, x, y)
    axes.axhline(0, **REFERENCE)
    axes.axvline(0, **REFERENCE)
    axes.plot(table[x], table[y], "o", color="#56B4E9", markersize=3, alpha=0.4, markeredgewidth=0, label=f"{len(table)} rows")
    medians = binned(table, x, y, bins)
    axes.plot(medians[x], medians[y], "o-", color="#D55E00", markersize=5, linewidth=1.4, label=f"medians of {bins} equal parts")
    axes.legend(loc="upper left", **LEGEND)
    for values, limit in ((table[x], axes.set_xlim), (table[y], axes.set_ylim)):
        low, high = np.quantile(values, [(1 - central) / 2, (1 + central) / 2])
        margin = 0.06 * (high - low) or 1.0
        limit(low - margin, high + margin)
    return figure
