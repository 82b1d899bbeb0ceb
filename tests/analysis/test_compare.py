"""Two policies example by example, with known right teachers."""

import numpy as np
import pytest
from small_traces import chosen, small_trace

from kd_env.analysis.compare import OUTCOMES, compare, outcomes
from kd_env.errors import InputError

RIGHT = np.array([[1.0, 0.0], [1.0, 1.0]])  # example 0: only p; example 1: both


def test_examples_have_choices_and_outcomes():
    first = chosen(0, 1, 0, 1, 0, 1, ce=[3, 0, 2, 0, 1, 0])
    second = chosen(1, 1, 1, 0, 0, 1, ce=[6, 0, 5, 0, 4, 0])
    table = compare(first, second, RIGHT).set_index("example_id")
    assert table.index.tolist() == [0, 1]  # the larger disagreement first
    assert table["choice"].tolist() == [0, 1]
    assert table["other_choice"].tolist() == [1, 1]
    assert table["disagreement"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert table.loc[0, list(OUTCOMES)].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0])
    assert table.loc[1, list(OUTCOMES)].tolist() == [1, 0, 0, 0]
    assert table.loc[0, ["ce", "other_ce", "decisions"]].tolist() == [2, 5, 3]


def test_equal_weights_are_right_in_part_and_no_teacher_is_never_right():
    uniform = small_trace([(0, 0, 0, 0, k, 0.5, 0) for k in range(2)])
    assert compare(uniform, chosen(-1), RIGHT).loc[0, list(OUTCOMES)].tolist() == [0, 0.5, 0, 0.5]
    assert compare(uniform, chosen(-1), RIGHT).loc[0, "other_choice"] == -1


def test_outcomes_are_weighted_by_decisions():
    table = compare(chosen(0, 1, 0), chosen(1, 1, 1), RIGHT)  # example 0 twice, example 1 once
    assert outcomes(table).set_index("outcome")["share"].to_dict() == pytest.approx(
        {"both right": 1 / 3, "only first right": 2 / 3, "only second right": 0, "neither right": 0}
    )
    by_group = outcomes(table, ["group"]).pivot(index="group", columns="outcome", values="share")
    assert by_group["only first right"].tolist() == [1, 0]
    assert by_group["both right"].tolist() == [0, 1]


def test_right_teachers_of_another_task_are_refused():
    with pytest.raises(InputError, match=r"right has shape \(2, 3\)"):
        compare(chosen(0, 1), chosen(0, 1), np.ones((2, 3)))
