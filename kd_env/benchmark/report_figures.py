"""Choose and draw the figures of a setting. In: its records, its table and its traces. Out: `Plot`, which draws when it is asked."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kd_env.analysis.across_figures import pairs_figure
from kd_env.analysis.figures import Styles, has_bands, has_scores, learning_curves, scores_figure, selection_by_group_figure
from kd_env.analysis.selection_map import SelectionMap, mean_over_seeds, read_selection_map
from kd_env.benchmark.records import Record
from kd_env.benchmark.report_claims import LEVEL, Pairs
from kd_env.benchmark.summary import base_name, by_score, records_by_policy, uses_reward_labels

MAX_PAIRED = 12
"""Policies in the table of all pairs."""
MAX_NAME = 80
"""Characters of a name in the name of a file."""
MAX_MAPS = 30
"""Seeds of a policy whose traces a selection map averages; of more, the first."""


class Plot(NamedTuple):
    """A figure that is drawn when `draw` is called.

    Attributes:
        name: name of its file, without the suffix.
        caption: text below it.
        policy: the policy of a selection map; empty for figures of all policies.
        draw: returns the figure.
    """

    name: str
    caption: str
    policy: str
    draw: Callable[[], Figure]


class Plots(NamedTuple):
    """The figures of a setting, and a sentence about the policies that have no selection map although they have traces."""

    plots: Sequence[Plot]
    note: str

    @property
    def maps(self) -> Sequence[Plot]:
        """The selection maps."""
        return [plot for plot in self.plots if plot.policy]


def setting_plots(directory: Path, stem: str, table: pd.DataFrame, records: Sequence[Record], styles: Styles, pairs: Pairs | None) -> Plots:
    """Return the figures of a setting, selection maps in the order of the policies' scores.

    Raises:
        InputError: a trace cannot be read.
    """
    plots = []
    if table["test"].notna().any():
        caption = "Test score by policy, mean and 95 % t interval over seeds."
        plots.append(Plot(f"{stem}-scores", caption, "", lambda: scores_figure(table, records[0]["metric"], styles)))
    if any(has_scores(record["curve"]) for record in records):
        caption = f"Learning curves on the validation split, mean{' and 95 % t interval' if has_bands(records) else ''} over seeds."
        plots.append(Plot(f"{stem}-curves", caption, "", lambda: learning_curves(records, styles)))
    if pairs is not None and len(pairs.policies) > 2 and np.isfinite(pairs.p).any():
        shown = f" of the {MAX_PAIRED} policies with the highest scores" if len(pairs.policies) > MAX_PAIRED else ""
        caption = (
            f"All pairs{shown}: mean test score of the row minus that of the column, in hundredths, paired by seed. Coloured where the "
            f"Holm-adjusted p of the pair is below {LEVEL}: blue above, orange below."
        )
        first = slice(MAX_PAIRED)
        figure = functools.partial(pairs_figure, pairs.policies[first], pairs.differences[first, first], pairs.p[first, first] < LEVEL)
        plots.append(Plot(f"{stem}-pairs", caption, "", figure))
    idle = []
    for policy, mean in _maps(directory, table, records):
        if not mean.teaches:
            idle.append(policy)
            continue
        seeds = f"mean over {mean.seeds} seeds" if mean.seeds > 1 else "one seed"
        caption = f"Weight of each teacher by group of examples: {policy}, {seeds}."
        draw = functools.partial(selection_by_group_figure, mean, colour=styles[policy].colour, policy=policy)
        name = f"{stem}-selection-{file_safe(policy)}"
        if name in [plot.name for plot in plots]:  # the policies differ in characters that a file's name does not have
            name = f"{name}-{len(plots)}"
        plots.append(Plot(name, caption, policy, draw))
    note = f"Without a selection map, because no teacher has weight in any decision: {', '.join(idle)}." if idle else ""
    return Plots(plots, note)


def _maps(directory: Path, table: pd.DataFrame, records: Sequence[Record]) -> Iterator[tuple[str, SelectionMap]]:
    """Yield the mean map of each policy that learns to select, and of the oracle, if they have traces; the highest score first."""
    of_policy = records_by_policy(records)
    for row in by_score(table).itertuples():
        if uses_reward_labels(row.access) or base_name(row.policy) == "oracle":
            paths = (directory / "traces" / f"{record['trial']}.parquet" for record in of_policy[row.policy] if not record["diverged"])
            if maps := [read_selection_map(path) for path in islice(filter(Path.is_file, paths), MAX_MAPS)]:
                yield row.policy, mean_over_seeds(maps)


def file_safe(name: str) -> str:
    """Return a name with a hyphen for what may not be in the name of a file. A long one is cut, and ends in a hash of the whole."""
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")
    return safe if len(safe) <= MAX_NAME else f"{safe[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
