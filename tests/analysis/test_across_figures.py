"""Figures that compare many policies."""

import numpy as np

from kd_env.analysis.across_figures import ABOVE, BELOW, pairs_figure, performance_profiles, ranks_figure
from kd_env.analysis.palette import policy_styles


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_profile_has_a_line_and_a_name_for_each_policy():
    thresholds = np.linspace(0, 1, 5)
    profiles = {"high": np.array([1, 1, 1, 1, 0.0]), "low": np.array([1, 0.5, 0, 0, 0.0])}
    figure = performance_profiles(profiles, thresholds, policy_styles(profiles))
    lines = {line.get_gid(): line.get_ydata().tolist() for line in figure.axes[0].lines if len(line.get_xdata()) == 5}
    assert lines == {f"policy:{policy}": share.tolist() for policy, share in profiles.items()}
    assert texts(figure) == ["low", "high"], "the lower line is named below"


def test_ranks_are_in_order_with_bars_of_the_critical_difference():
    ranks = {"second": 2.0, "first": 1.25, "third": 2.75}
    figure = ranks_figure(ranks, 0.5, policy_styles(ranks))
    assert texts(figure) == ["first", "second", "third"]
    bars = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and str(line.get_gid()).startswith("policy")]
    assert bars == [[1.0, 1.5], [1.75, 2.25], [2.5, 3.0]]
    without = ranks_figure(ranks, None, policy_styles(ranks))
    assert not [line for line in without.axes[0].lines if len(line.get_xdata()) == 2 and str(line.get_gid()).startswith("policy")]


def test_a_table_of_pairs_colours_what_is_decided():
    differences = np.array([[0.0, 0.02, np.nan], [-0.02, 0.0, -0.001], [np.nan, 0.001, 0.0]])
    decided = np.array([[False, True, False], [True, False, True], [False, True, False]])
    figure = pairs_figure(["a", "b", "c"], differences, decided)
    assert [text for text in texts(figure) if text[0] in "+−"] == ["+2.0", "−0.1"]
    (boxes,) = figure.axes[0].collections
    assert [tuple(colour) for colour in boxes.get_facecolors()] == [ABOVE, BELOW]
