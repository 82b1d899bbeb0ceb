"""Compare policies over all settings of a report. In: records by setting. Out: a table and figures, or None.

The numbers describe the policies. What may be claimed is said below each setting.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kd_env.analysis.across_figures import performance_profiles, ranks_figure
from kd_env.analysis.figures import Styles
from kd_env.benchmark.aggregates import (
    Strata,
    critical_difference,
    improvement_over_settings,
    iqm_over_settings,
    mean_ranks,
    performance_profile,
)
from kd_env.benchmark.grouping import Setting
from kd_env.benchmark.overview import REFERENCE
from kd_env.benchmark.records import Record
from kd_env.benchmark.report_figures import Plot
from kd_env.benchmark.report_sections import Table
from kd_env.benchmark.report_text import NO_VALUE, interval
from kd_env.benchmark.statistics import FloatArray

MAX_LINES = 12
SETTINGS_FOR_A_TEST = 5
"""Settings from which the Nemenyi test is shown; with fewer it finds little, and its normal approximation is poor."""


class Across(NamedTuple):
    """The comparison over settings: a table with a row per policy, and figures."""

    table: Table
    access: Mapping[str, str]
    plots: Sequence[Plot]


def compare_across(groups: Mapping[Setting, Sequence[Record]], styles: Styles) -> Across | None:
    """Return the comparison of the policies that have test scores in all settings, without privileged ones.

    It is None for fewer than two settings or policies.
    """
    access = {record["policy"]: record["access"] for records in groups.values() for record in records if record["access"] != "privileged"}
    by_setting = [_scores(records) for records in groups.values()]
    shared = [policy for policy in sorted(access) if all(policy in scores for scores in by_setting)]
    if len(groups) < 2 or len(shared) < 2:
        return None
    strata: dict[str, Strata] = {policy: [scores[policy] for scores in by_setting] for policy in shared}
    middle = {policy: iqm_over_settings(of_policy) for policy, of_policy in strata.items()}
    shared.sort(key=lambda policy: -middle[policy].value)
    means = np.array([[values.mean() for values in strata[policy]] for policy in shared]).T  # [settings, policies]
    ranks = dict(zip(shared, mean_ranks(means).tolist(), strict=True))
    rows = []
    for policy in shared:
        against = NO_VALUE
        if REFERENCE in strata and policy != REFERENCE:
            against = interval(*improvement_over_settings(strata[policy], strata[REFERENCE]))
        runs = sum(map(len, strata[policy]))
        rows.append((policy, access[policy], interval(*middle[policy]), f"{ranks[policy]:.2f}", against, f"{runs}"))
    left_out = len(access) - len(shared)
    metrics = sorted({record["metric"] for records in groups.values() for record in records})
    mixed = f" The settings have different metrics ({', '.join(metrics)}), which the IQM mixes; ranks do not." if len(metrics) > 1 else ""
    unequal = any(len({len(scores[policy]) for policy in shared}) > 1 for scores in by_setting)
    weighed = " Policies have different numbers of runs in a setting: their IQMs weigh the settings differently." if unequal else ""
    caption = (
        f"Test scores over the {len(groups)} settings, of policies that were run in all of them"
        f"{f' (policies left out: {left_out})' if left_out else ''}. IQM: mean of the middle half of all runs, with a bootstrap interval "
        "stratified by setting. Mean rank: by mean score in each setting, 1 is best. P(above uniform): probability that a run has a higher "
        f"score than a run of uniform in the same setting.{mixed}{weighed} "
        "These numbers describe; what may be claimed is said at each setting."
    )
    table = Table(caption, ("policy", "access", "IQM [95 %]", "mean rank", f"P(above {REFERENCE}) [95 %]", "runs"), rows)
    return Across(table, access, _plots({policy: strata[policy] for policy in shared}, ranks, len(groups), styles))


def _scores(records: Sequence[Record]) -> dict[str, FloatArray]:
    """Return the test scores of each policy that has some."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record["test"] is not None:
            scores[record["policy"]].append(record["test"])
    return {policy: np.array(values) for policy, values in scores.items()}


def _plots(strata: Mapping[str, Strata], ranks: Mapping[str, float], num_settings: int, styles: Styles) -> list[Plot]:
    shown = dict(list(strata.items())[:MAX_LINES])
    scores = np.concatenate([values for of_policy in shown.values() for values in of_policy])
    margin = 0.02 * float(np.ptp(scores)) or 0.02
    thresholds = np.linspace(float(scores.min()) - margin, float(scores.max()) + margin, 200)
    profiles = {policy: performance_profile(of_policy, thresholds) for policy, of_policy in shown.items()}
    most = f" of the {MAX_LINES} policies with the highest IQM" if len(strata) > MAX_LINES else ""
    tested = num_settings >= SETTINGS_FOR_A_TEST
    bars = "Policies whose bars do not overlap differ by the Nemenyi test (p < 0.05)." if tested else ""
    few = "" if tested else f"With fewer than {SETTINGS_FOR_A_TEST} settings, ranks are not tested."
    difference = critical_difference(len(ranks), num_settings) if tested else None
    return [
        Plot(
            "00-profiles",
            f"Performance profiles{most}: share of runs with a test score above the value on the axis, mean over settings.",
            "",
            functools.partial(performance_profiles, profiles, thresholds, styles),
        ),
        Plot("00-ranks", f"Mean ranks over settings. {bars}{few}", "", functools.partial(ranks_figure, ranks, difference, styles)),
    ]
