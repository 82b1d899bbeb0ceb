"""Figures of comparisons."""

import numpy as np
import pandas as pd
from small_traces import chosen

from kd_env.analysis.agreement import agreement_table
from kd_env.analysis.compare import compare, outcomes
from kd_env.analysis.comparison_figures import agreement_figure, credit_figure, outcomes_figure


def test_agreement_is_a_matrix_of_policies_then_rules():
    traces = {"x": {0: chosen(0, 1)}, "y": {0: chosen(0, 0)}}
    axes = agreement_figure(agreement_table(traces, {"a rule": np.array([[1.0, 0], [1, 0]])})).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["x", "y"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["x", "y", "a rule"]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (1, 0): "0.50", (2, 0): "0.50", (0, 1): "0.50", (2, 1): "1.00",
    }  # fmt: skip


def test_outcomes_are_bars_from_zero_to_one():
    comparison = compare(chosen(0, 1), chosen(1, 1), np.array([[1.0, 0.0], [0.0, 1.0]]))
    figure = outcomes_figure(outcomes(comparison, ["group"]), "mine", "its", ["a", "b"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["b", "a"]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "both right", "only mine right", "only its right", "neither right",
    ]  # fmt: skip
    whole = outcomes_figure(outcomes(comparison), "mine", "its").axes[0]
    assert [text.get_text() for text in whole.get_yticklabels()] == ["all decisions"]
    assert [bars[0].get_width() for bars in whole.containers] == [0.5, 0.5, 0, 0]


def test_credit_has_points_and_medians_and_leaves_out_what_is_far_away():
    table = pd.DataFrame({"credit": [*range(100), 1e6], "effect": [*range(100), 0]}).astype(float)
    axes = credit_figure(table, bins=2).axes[0]
    points, medians = axes.get_lines()[2:]
    assert len(points.get_xdata()) == 101
    assert list(medians.get_xdata()) == [25, 75.5]
    assert axes.get_xlim()[1] < 120
