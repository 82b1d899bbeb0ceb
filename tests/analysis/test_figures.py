"""Figures of traces, learning curves and scores."""

import io
import itertools
import math

import pandas
import pytest

from kd_env.analysis.figures import has_bands, has_scores, learning_curves, scores_figure, selection_by_group_figure
from kd_env.analysis.palette import policy_styles
from kd_env.analysis.traces import read_trace, selection_over_time
from kd_env.errors import InputError

# (update, slot, group, teacher, weight)
ROWS = [(0, 0, 0, 0, 1.0), (0, 1, 1, 0, 0.5), (0, 1, 1, 1, 0.5), (1, 0, 0, -1, 0.0), (1, 1, 1, 1, 1.0)]


def cells(figure):
    """The cells of a map: alpha by (panel, row, bin); two bins."""
    drawn, frames = figure.axes[0].collections
    panels = [path.get_extents() for path in frames.get_paths()]
    opacities = {}
    for path, face in zip(drawn.get_paths(), drawn.get_facecolors(), strict=True):
        x, y = path.get_extents().x0 + 0.01, path.get_extents().y0 + 0.01
        (panel,) = [i for i, box in enumerate(panels) if box.contains(x, y)]
        opacities[panel, int((y - panels[panel].y0) / 0.16), int((x - panels[panel].x0) / panels[panel].width * 2)] = float(face[3])
    return opacities


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_map_has_a_panel_per_group_and_a_row_per_teacher(write):
    figure = selection_by_group_figure(read_trace(write(ROWS)))
    assert cells(figure) == {(0, 0, 0): 1.0, (1, 0, 0): 0.5, (1, 1, 0): 0.5, (1, 1, 1): 1.0}, "cells without weight are not drawn"
    first, second = ["a", "0.50", "p", "0.00", "q", "0.00", "r", "0", "2"], ["b", "0.25", "0.75", "0.00", "0", "2"]
    assert texts(figure) == [*first, *second, "student updates"]


def test_the_map_of_several_traces_is_their_mean(write):
    first = read_trace(write(ROWS))
    second = read_trace(write([(u, s, g, 2, 1.0) for u, s, g, _, _ in ROWS]))
    figure = selection_by_group_figure([first, second])
    assert {place: alpha for place, alpha in cells(figure).items() if place[0] == 0} == {(0, 0, 0): 0.5, (0, 2, 0): 0.5, (0, 2, 1): 0.5}


def test_a_task_without_groups_has_one_panel(write):
    figure = selection_by_group_figure(read_trace(write([(u, s, -1, k, w) for u, s, _, k, w in ROWS], groups=())))
    assert texts(figure)[0] == "all examples"
    assert len(figure.axes[0].collections[1].get_paths()) == 1


def test_learning_curves_draw_the_mean_over_seeds_and_skip_missing_scores():
    curve = [[(0, 0.1), (10, 0.3), (20, None)], [(0, 0.3), (10, 0.5), (20, None)]]
    records = [
        {"policy": "uniform", "seed": seed, "metric": "accuracy", "curve": [{"update": u, "validation": v} for u, v in points]}
        for seed, points in enumerate(curve)
    ]
    records[0]["curve"] += [{"update": 30, "validation": math.nan}, {"update": 40}]
    axes = learning_curves(records).axes[0]
    assert list(axes.get_lines()[0].get_xdata()) == [0, 10]
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([0.2, 0.4])
    assert [text.get_text() for text in axes.texts] == ["uniform"]


def test_curves_of_two_settings_are_refused():
    run = {"policy": "uniform", "seed": 3, "metric": "f1", "curve": [{"update": 1, "validation": 0.5}]}
    with pytest.raises(InputError, match="policy 'uniform' has two records with seed 3; give the records of one setting"):
        learning_curves([run, run])


def test_a_curve_without_scores_is_no_curve():
    run = {"policy": "uniform", "seed": 3, "metric": "f1", "curve": [{"update": 1, "validation": math.nan}, {"update": 2}]}
    assert not has_scores(run["curve"])
    assert not learning_curves([run]).axes[0].get_lines()


def test_a_map_needs_a_trace_and_a_bin(write):
    with pytest.raises(InputError, match="bins=0"):
        selection_by_group_figure(read_trace(write(ROWS)), bins=0)
    with pytest.raises(InputError, match="no selection maps or traces"):
        selection_by_group_figure([])
    with pytest.raises(InputError, match="bins=0"):
        selection_over_time(read_trace(write(ROWS)), bins=0)


def test_names_of_lines_that_end_together_do_not_overlap():
    curve = [{"update": 0, "validation": 0.0}, {"update": 10, "validation": 1.0}]
    records = [{"policy": f"policy {i}", "seed": 0, "metric": "f1", "curve": curve} for i in range(12)]
    figure = learning_curves(records)
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 12
    assert all(below.y1 <= above.y0 + 2 for below, above in itertools.pairwise(boxes))


def scores(*rows):
    return pandas.DataFrame(rows, columns=["policy", "access", "n", "test", "test_low", "test_high"])


TABLE = scores(
    ("mine", "reward scalar", 1, 0.6, math.nan, math.nan),
    ("oracle", "privileged", 3, 0.9, 0.8, 1.4),
    ("uniform", "nothing", 3, 0.4, 0.3, 0.5),
)


def test_scores_are_in_their_order_and_one_seed_has_no_interval():
    axes = scores_figure(TABLE, "accuracy").axes[0]
    names = {round(text.get_position()[1]): text.get_text() for text in axes.texts if "n=" in text.get_text()}
    assert names == {2: "oracle (n=3)", 1: "mine (n=1)", 0: "uniform (n=3)"}
    intervals = {line.get_ydata()[0]: list(line.get_xdata()) for line in axes.get_lines() if line.get_linewidth() > 2}
    assert intervals == {2: [0.8, 1.4], 0: [0.3, 0.5]}
    assert axes.get_xlim()[1] < 1.1, "an interval may exceed the range of the metric, the axis does not"
    references = [
        line.get_xdata()[0] for line in axes.get_lines() if line.get_xdata()[0] == line.get_xdata()[-1] and len(line.get_xdata()) == 2
    ]
    assert references == [0.4, 0.9]


def test_a_policy_has_the_same_colour_on_all_figures():
    records = [{"policy": name, "seed": 0, "metric": "f1", "curve": [{"update": 1, "validation": 0.5}]} for name in TABLE["policy"]]
    styles = policy_styles([*TABLE["policy"], "another"])
    figures = learning_curves(records, styles), scores_figure(TABLE, "f1", styles)
    for figure in figures:
        colours = {line.get_gid(): line.get_color() for line in figure.axes[0].get_lines() if line.get_gid()}
        assert colours == {f"policy:{name}": styles[name].colour for name in TABLE["policy"]}
    assert policy_styles(["b", "a", "a"]) == policy_styles(["a", "b"])


def test_thirty_two_policies_differ_in_colour_dashes_or_marker():
    assert len(set(policy_styles(f"policy {i}" for i in range(32)).values())) == 32


def test_curves_have_intervals_from_three_seeds_and_up_to_twelve_policies():
    curve = [{"update": 0, "validation": 0.0}, {"update": 10, "validation": 1.0}]
    three = [
        {"policy": "a", "seed": s, "metric": "f1", "curve": [point | {"validation": point["validation"] + 0.1 * s} for point in curve]}
        for s in range(3)
    ]
    many = [run | {"policy": f"policy {i}"} for i in range(13) for run in three]
    assert [has_bands(records) for records in (three[:2], three, many)] == [False, True, False]
    assert [len(learning_curves(records).axes[0].collections) for records in (three[:2], three, many)] == [0, 1, 0]


@pytest.mark.parametrize("name", ["from $x^$ up", "$\\frac$ $", "red \x1b[31m"])
@pytest.mark.parametrize("form", ["png", "svg"])
def test_a_name_is_drawn_as_it_is(write, name, form):
    figure = selection_by_group_figure(read_trace(write(ROWS, groups=(name, "b"), teachers=(name, "q", "r"))))
    figure.savefig(io.BytesIO(), format=form)
    assert texts(figure).count(name.replace("\x1b", "\\x1b")) == 2
    records = [{"policy": name, "seed": 0, "metric": "accuracy", "curve": [{"update": update, "validation": 0.5} for update in (1, 2)]}]
    learning_curves(records).savefig(io.BytesIO(), format=form)
