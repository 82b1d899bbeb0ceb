"""Entropies of selections with known answers."""

import math

import pytest
from small_traces import chosen, small_trace

from kd_env.analysis.entropy import entropies
from kd_env.errors import InputError


def row(trace):
    return entropies(trace).iloc[0].to_dict()


def test_one_teacher_for_all():
    assert row(chosen(1, 1, 1, 1)) == pytest.approx(
        dict.fromkeys(["marginal", "given_group", "given_example", "given_decision"], 0.0)
        | dict.fromkeys(["group_information", "example_information", "chance_information"], 0.0)
        | {"taught": 1.0}
    )


def test_each_example_its_own_teacher():
    values = row(chosen(0, 1, 0, 1))
    assert (values["marginal"], values["given_example"], values["example_information"]) == pytest.approx((1, 0, 1))
    assert values["group_information"] == pytest.approx(1)


def test_sampled_choices_depend_on_the_decision_and_not_on_the_example():
    values = row(chosen(0, 0, 1, 1))
    assert values["marginal"] == pytest.approx(1)
    assert values["given_example"] == pytest.approx(1)
    assert values["example_information"] == pytest.approx(0)
    assert values["given_decision"] == 0


def test_weights_are_probabilities():
    weights = [(0, 0, 0, 0, 0, 0.25, 0), (0, 0, 0, 0, 1, 0.75, 0)]
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert row(small_trace(weights))["marginal"] == pytest.approx(expected)
    assert row(small_trace(weights, teachers=("p", "q", "r", "s")))["given_decision"] == pytest.approx(expected / 2)


def test_decisions_without_a_teacher_are_left_out():
    values = row(chosen(0, -1, 0, -1))
    assert (values["marginal"], values["taught"]) == (0, 0.5)
    with pytest.raises(InputError, match="selects a teacher"):
        entropies(chosen(-1, -1))


def test_chance_information_is_that_of_exchanged_examples():
    trace = small_trace([(u, s, 2 * (u % 50) + s, 0, s, 1.0, 0) for u in range(200) for s in range(2)])
    values = row(trace)  # 100 examples with four decisions each
    assert values["example_information"] == pytest.approx(1)
    assert 0.1 < values["chance_information"] < 0.3  # the plug-in estimate of 0 from four draws each
