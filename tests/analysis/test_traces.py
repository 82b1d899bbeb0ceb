"""Means of traces against values computed by hand, and the figures that draw them."""

import itertools
import json
import math

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from kd_env.analysis.figures import learning_curves, scores_figure, selection_by_group_figure
from kd_env.analysis.traces import read_trace, selection_by_group, selection_over_time, weight_entropy
from kd_env.errors import InputError

TYPES = {"update": "int32", "slot": "int16", "example_id": "int32", "group": "int16", "teacher": "int16"}
TYPES |= {"weight": "float32", "reward": "float32", "student_ce": "float32"}

# (update, slot, group, teacher, weight). Update 0: slot 0 teacher 0 alone, slot 1 half and half. Update 1: slot 0 nobody, slot 1 teacher 1.
ROWS = [(0, 0, 0, 0, 1.0), (0, 1, 1, 0, 0.5), (0, 1, 1, 1, 0.5), (1, 0, 0, -1, 0.0), (1, 1, 1, 1, 1.0)]


@pytest.fixture
def write(tmp_path):
    def write_rows(rows, groups=("a", "b"), teachers=("p", "q", "r"), drop=()):
        columns = {name: pyarrow.array([], kind) for name, kind in TYPES.items()}
        for name, place in {"update": 0, "slot": 1, "group": 2, "teacher": 3, "weight": 4}.items():
            columns[name] = pyarrow.array([row[place] for row in rows], TYPES[name])
        for name in ("example_id", "reward", "student_ce"):
            columns[name] = pyarrow.array([0] * len(rows), TYPES[name])
        table = pyarrow.table({name: column for name, column in columns.items() if name not in drop})
        metadata = {"group_names": json.dumps(groups), "teacher_names": json.dumps(teachers), "trial": "t-0"}
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    return write_rows


def test_a_trace_has_its_names(write):
    trace = read_trace(write(ROWS))
    assert trace.attrs == {"group_names": ["a", "b"], "teacher_names": ["p", "q", "r"], "trial": "t-0", "differentiable": False}
    assert len(trace) == 5


def test_selection_over_time_is_a_mean_over_decisions(write):
    means = selection_over_time(read_trace(write(ROWS)))
    assert means.index.tolist() == [0, 1]
    assert means.to_numpy().tolist() == [[0.75, 0.25, 0], [0, 0.5, 0]]


def test_bins_have_equal_widths_and_are_indexed_by_their_middle(write):
    trace = read_trace(write([(update, 0, 0, int(update >= 50), 1.0) for update in range(100)]))
    means = selection_over_time(trace, bins=4)
    assert means.index.tolist() == [12, 37, 62, 87]
    assert means[1].tolist() == [0, 0, 1, 1]
    assert selection_over_time(trace, bins=1)[1].tolist() == [0.5]


def test_selection_by_group(write):
    means = selection_by_group(read_trace(write(ROWS)), bins=1).set_index(["group", "teacher"])["weight"]
    assert means.to_dict() == {(0, 0): 0.5, (0, 1): 0, (0, 2): 0, (1, 0): 0.25, (1, 1): 0.75, (1, 2): 0}


def test_weight_entropy_is_one_for_equal_weights_and_zero_for_one_teacher_or_none(write):
    trace = read_trace(write(ROWS))
    half = math.log(2) / math.log(3)
    assert weight_entropy(trace).tolist() == pytest.approx([half / 2, 0])
    equal = read_trace(write([(0, 0, 0, k, 1 / 3) for k in range(3)]))
    assert weight_entropy(equal).tolist() == pytest.approx([1.0])
    assert weight_entropy(read_trace(write([(0, 0, 0, 0, 1.0)], teachers=["p"]))).tolist() == [0]


def test_a_file_that_is_not_a_trace_is_refused(write, tmp_path):
    with pytest.raises(InputError, match="not a readable parquet"):
        read_trace(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("update,slot\n")
    with pytest.raises(InputError, match="not a readable parquet"):
        read_trace(tmp_path / "text.parquet")
    with pytest.raises(InputError, match="lacks group, weight"):
        read_trace(write(ROWS, drop=("weight", "group")))
    with pytest.raises(InputError, match="at least one update"):
        selection_over_time(read_trace(write([])))


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
