"""Means of traces against values computed by hand."""

import math

import pytest

from kd_env.analysis.traces import read_trace, selection_by_group, selection_over_time, weight_entropy
from kd_env.errors import InputError

# (update, slot, group, teacher, weight). Update 0: slot 0 has teacher 0, slot 1 both. Update 1: slot 0 has no teacher, slot 1 teacher 1.
ROWS = [(0, 0, 0, 0, 1.0), (0, 1, 1, 0, 0.5), (0, 1, 1, 1, 0.5), (1, 0, 0, -1, 0.0), (1, 1, 1, 1, 1.0)]


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
