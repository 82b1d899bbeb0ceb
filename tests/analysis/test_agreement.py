"""Agreement of choices against shares computed by hand."""

import numpy as np
import pytest
from small_traces import chosen, small_trace

from kd_env.analysis.agreement import agreement, agreement_table
from kd_env.errors import InputError

UNIFORM = small_trace([(u, 0, u % 2, u % 2, k, 0.5, 0) for u in range(4) for k in range(2)])


def test_the_share_of_equal_choices():
    row = agreement(chosen(0, 1, 1, 1), chosen(0, 1, 0, 1)).iloc[0]
    assert row.to_dict() == {"agreement": 0.75, "chance": 0.25 * 0.5 + 0.75 * 0.5, "decisions": 4}


def test_by_group_and_by_update():
    first, second = chosen(0, 1, 1, 1), chosen(0, 1, 0, 1)
    by_group = agreement(first, second, by=["group"])
    assert by_group[["group", "agreement"]].to_numpy().tolist() == [[0, 0.5], [1, 1]]
    by_update = agreement(first, second, by=["update"], bins=2)
    assert by_update[["update", "agreement"]].to_numpy().tolist() == [[0.5, 1], [2.5, 0.5]]
    assert by_update["chance"].tolist() == [0.5, 0.5]
    both = agreement(first, second, by=["update", "group"], bins=2)
    assert both[["update", "group", "agreement"]].to_numpy().tolist() == [[0.5, 0, 1], [0.5, 1, 1], [2.5, 0, 0], [2.5, 1, 1]]


def test_equal_weights_agree_by_chance():
    assert agreement(UNIFORM, chosen(0, 0, 1, 0))["agreement"].tolist() == [0.5]


def test_no_teacher_agrees_with_no_teacher_alone():
    assert agreement(chosen(-1, -1), chosen(-1, 0))["agreement"].tolist() == [0.5]


def test_a_rule_is_matched_by_example():
    rule = np.array([[1.0, 0.0], [0.2, 0.8]])  # example 0: p, example 1: q
    assert agreement(chosen(0, 1, 1, 0), rule, by=["group"])["agreement"].tolist() == [0.5, 0.5]
    with pytest.raises(InputError, match=r"weights of shape \(1, 2\)"):
        agreement(chosen(0, 1), rule[:1])


def test_one_policy_is_no_pair():
    with pytest.raises(InputError, match="nothing to compare; give traces of two policies"):
        agreement_table({"a": {0: chosen(0, 1)}})


def test_the_table_has_all_pairs_averaged_over_shared_seeds():
    traces = {"a": {0: chosen(0, 1), 1: chosen(0, 0)}, "b": {0: chosen(0, 1), 1: chosen(0, 1), 2: chosen(1, 1)}}
    table = agreement_table(traces, {"rule": np.array([[1.0, 0.0], [1.0, 0.0]])}).set_index(["policy", "other"])
    assert table["agreement"].to_dict() == pytest.approx(
        {("a", "b"): 0.75, ("b", "a"): 0.75, ("a", "rule"): 0.75, ("b", "rule"): (0.5 + 0.5 + 0) / 3}
    )
    assert table["n"].to_dict() == {("a", "b"): 2, ("b", "a"): 2, ("a", "rule"): 2, ("b", "rule"): 3}
