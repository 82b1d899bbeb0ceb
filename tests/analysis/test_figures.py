"""Figures of traces, learning curves and scores."""

import itertools
import math

import pandas
import pytest

from kd_env.analysis.figures import ACCESS_COLOURS, learning_curves, scores_figure, selection_by_group_figure
from kd_env.analysis.traces import read_trace
from kd_env.policies.registry import ACCESS

# (update, slot, group, teacher, weight)
ROWS = [(0, 0, 0, 0, 1.0), (0, 1, 1, 0, 0.5), (0, 1, 1, 1, 0.5), (1, 0, 0, -1, 0.0), (1, 1, 1, 1, 1.0)]


def test_every_access_class_has_a_colour():
    assert set(ACCESS_COLOURS) == set(ACCESS)


def test_the_figure_has_a_panel_per_group_and_a_line_per_teacher(write):
    figure = selection_by_group_figure(read_trace(write(ROWS)))
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["a", "b"]
    lines = panels[1].get_lines()[1:]  # the first is 1/K
    assert [list(line.get_ydata()) for line in lines] == [[0.5, 0], [0.5, 1], [0, 0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["p", "q", "r", "uniform, 1/K"]


def test_a_task_without_groups_has_one_panel(write):
    figure = selection_by_group_figure(read_trace(write([(u, s, -1, k, w) for u, s, _, k, w in ROWS], groups=())))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["all examples"]


def test_learning_curves_draw_the_mean_over_seeds_and_skip_missing_scores():
    curve = [[(0, 0.1), (10, 0.3), (20, None)], [(0, 0.3), (10, 0.5), (20, None)]]
    records = [
        {"policy": "uniform", "metric": "accuracy", "curve": [{"update": u, "validation": v} for u, v in points]} for points in curve
    ]
    axes = learning_curves(records).axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [0, 10]
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([0.2, 0.4])
    assert [text.get_text() for text in axes.texts] == ["uniform"]


def test_names_of_lines_that_end_together_do_not_overlap():
    curve = [{"update": 0, "validation": 0.0}, {"update": 10, "validation": 1.0}]
    records = [{"policy": f"policy {i}", "metric": "f1", "curve": curve} for i in range(12)]
    figure = learning_curves(records)
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 12
    assert all(below.y1 <= above.y0 + 2 for below, above in itertools.pairwise(boxes))


def test_scores_mark_uniform_and_oracle():
    scores = [
        ("uniform", "nothing", 3, 0.4, 0.3, 0.5),
        ("mine", "reward scalar", 1, 0.6, math.nan, math.nan),
        ("oracle", "privileged", 3, 0.9, 0.8, 1.4),
    ]
    rows = pandas.DataFrame(scores, columns=["policy", "access", "n", "test", "test_low", "test_high"])
    axes = scores_figure(rows, "accuracy").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["oracle  (n=3)", "mine  (n=1)", "uniform  (n=3)"]
    assert {text.get_text(): round(text.get_position()[0], 3) for text in axes.texts} == {"uniform": 0.4, "oracle": 0.9}
    assert axes.get_xlim()[1] <= 1.01
