"""Figures of what policies select."""

import pandas as pd
import pytest
from small_traces import chosen

from kd_env.analysis.entropy import entropies
from kd_env.analysis.policy_figures import agreement_curves, entropy_figure, score_regret_figure, selection_figure
from kd_env.analysis.seeds import for_each_seed, over_seeds
from kd_env.analysis.traces import selection_by_group


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def labels(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def test_selection_has_a_panel_per_group_and_a_line_per_teacher():
    table = for_each_seed(selection_by_group, {0: chosen(0, 1, 0, 1), 1: chosen(1, 1, 0, 1)}, bins=2)
    figure = selection_figure(over_seeds(table, "weight", ["update", "group", "teacher"]), ["p", "q"], ["a", "b"])
    assert titles(figure) == ["a", "b"]
    lines = figure.axes[0].get_lines()[1:]  # the first is 1/K
    assert [list(line.get_ydata()) for line in lines] == [[0.5, 1], [0.5, 0]]
    assert list(lines[0].get_xdata()) == [0.5, 2.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["p", "q", "uniform, 1/K"]


def test_panels_of_difficulty_are_named_and_end_with_a_full_row():
    means = pd.DataFrame({"update": 0, "level": [0, 1, 2], "teacher": 0, "weight": 1.0, "low": 1.0, "high": 1.0})
    assert titles(selection_figure(means, ["p"], panel="level")) == ["easy", "medium", "hard"]
    five = pd.concat([means.assign(group=group) for group in (-1, 0, 1, 2, 7)]).query("level == 0")
    assert titles(selection_figure(five, ["p"], ["a", "b", "c"])) == ["all examples", "a", "b", "c", "group 7"]


def test_agreement_curves_have_a_line_per_policy():
    means = pd.DataFrame({"policy": ["x", "x", "y"], "update": [0, 5, 0], "agreement": [0.2, 0.6, 0.5], "low": 0.0, "high": 1.0})
    figure = agreement_curves(means, num_teachers=4)
    chance, first, second = figure.axes[0].get_lines()
    assert list(chance.get_ydata()) == [0.25, 0.25]
    assert (list(first.get_ydata()), list(second.get_ydata())) == ([0.2, 0.6], [0.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y", "chance, 1/K"]


def test_entropies_have_a_row_per_policy():
    tables = {"single": {0: chosen(0, 0, 0, 0)}, "by example": {0: chosen(0, 1, 0, 1), 1: chosen(0, 1, 0, 1)}}
    figure = entropy_figure(pd.concat([for_each_seed(entropies, of_policy).assign(policy=name) for name, of_policy in tables.items()]))
    assert labels(figure.axes[0]) == ["by example", "single"]
    (bars,) = figure.axes[0].collections
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[0, pytest.approx(1)], [0, 0]]


def test_regret_is_sorted_and_has_a_panel_per_group():
    means = pd.DataFrame({"policy": ["far", "near"], "regret": [0.5, 0.1], "low": [0.4, 0.0], "high": [0.6, 0.2]})
    axes = score_regret_figure(means).axes[0]
    assert labels(axes) == ["far", "near"]
    assert list(axes.get_lines()[-1].get_xdata()) == [0.5, 0.1]
    figure = score_regret_figure(pd.concat([means.assign(group=0), means.assign(group=1, regret=[0.7, 0.3])]), ["a", "b"])
    assert titles(figure) == ["a", "b"]
    assert list(figure.axes[1].get_lines()[-1].get_xdata()) == [0.7, 0.3]
