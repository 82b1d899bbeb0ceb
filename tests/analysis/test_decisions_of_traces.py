"""Decisions of traces, and which decisions two traces share."""

import pytest
from small_traces import chosen, small_trace

from kd_env.analysis.decisions import choices, decisions, matched
from kd_env.errors import InputError

# Update 0: slot 0 has teacher q, slot 1 both. Update 1: slot 0 has no teacher.
ROWS = [(0, 0, 7, 1, 1, 1.0, 0.3), (0, 1, 5, 0, 0, 0.25, 0.4), (0, 1, 5, 0, 1, 0.75, 0.4), (1, 0, 5, 0, -1, 0.0, 0.1)]


def test_a_decision_has_its_example_and_the_weights_of_all_teachers():
    table, weights = decisions(small_trace(ROWS))
    assert table[["update", "slot", "example_id", "group"]].to_numpy().tolist() == [[0, 0, 7, 1], [0, 1, 5, 0], [1, 0, 5, 0]]
    assert table["student_ce"].tolist() == [0.3, 0.4, 0.1]
    assert weights.tolist() == [[0, 1], [0.25, 0.75], [0, 0]]


def test_the_order_of_rows_does_not_matter():
    trace = small_trace(ROWS)
    backwards = trace.iloc[::-1]
    backwards.attrs = trace.attrs
    assert decisions(backwards).table.equals(decisions(trace).table)
    assert (decisions(backwards).weights == decisions(trace).weights).all()


def test_the_choice_is_the_largest_weight_and_equal_weights_share_it():
    weights = decisions(small_trace([(0, 0, 0, 0, 0, 0.5, 0), (0, 0, 0, 0, 1, 0.5, 0), *ROWS[1:]])).weights
    assert choices(weights).tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]


def test_decisions_are_matched_by_update_slot_and_example():
    other = small_trace([(0, 1, 5, 0, 0, 1.0, 0.9), (0, 0, 8, 1, 0, 1.0, 0.9), (1, 0, 5, 0, 1, 1.0, 0.9)])
    first, second = matched(small_trace(ROWS), other)
    assert first.table[["update", "slot", "example_id"]].to_numpy().tolist() == [[0, 1, 5], [1, 0, 5]]
    assert first.weights.tolist() == [[0.25, 0.75], [0, 0]]
    assert second.weights.tolist() == [[1, 0], [0, 1]]


def test_traces_without_a_common_decision_are_refused():
    with pytest.raises(InputError, match="no decision in common"):
        matched(small_trace(ROWS), chosen(0, 1))


def test_an_empty_trace_is_refused():
    with pytest.raises(InputError, match="no decisions"):
        decisions(small_trace([]))
