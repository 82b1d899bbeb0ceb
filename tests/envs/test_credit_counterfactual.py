"""Credit against what really happens: the counterfactual is a real gain, and first-order credit comes near it."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from credited import STUDENTS, at_rate, rank_correlations, response, start, taught
from pairwise import chosen, pairwise

from kd_env.envs import credit
from kd_env.types import Decision


@pytest.mark.parametrize(
    ("case", "updates"),
    chosen(
        itertools.product([STUDENTS[0], STUDENTS[1], STUDENTS[3]], [0, 3]),
        [(STUDENTS[0], 0), (STUDENTS[0], 3), (STUDENTS[1], 3), (STUDENTS[3], 3)],
    ),
)
def test_with_sgd_first_order_becomes_the_counterfactual(request, case, updates):
    data, student = case
    selection = start(request.getfixturevalue(data), student=student, optimizer="sgd(lr=0.05)", batch_size=4, kd_weight=0.8)
    selection = taught(selection, updates)
    students = selection.distillation.student
    students.options = dataclasses.replace(students.options, lr=1e-6)
    exact, linear = response(credit.counterfactual, selection), response(credit.first_order, selection)
    large = exact.abs() > 0.02 * exact.abs().max()
    assert large.float().mean() > 0.5
    torch.testing.assert_close((linear / exact)[large], torch.ones_like(exact)[large], rtol=0, atol=1e-3)
    torch.testing.assert_close(linear, exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


def test_the_gap_to_the_counterfactual_closes_with_the_rate(digits_data):
    selection = taught(start(digits_data, student="mlp(width=8)", optimizer="sgd(lr=0.05)", batch_size=4), 3)
    students, gaps = selection.distillation.student, []
    for rate in (1e-2, 1e-4, 1e-6):
        students.options = dataclasses.replace(students.options, lr=rate)
        exact = response(credit.counterfactual, selection)
        gaps.append(float((response(credit.first_order, selection) - exact).norm() / exact.norm()))
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "optimizer", "num_students"), pairwise([STUDENTS[0], STUDENTS[3]], ["adam(lr=0.003)", "sgd(lr=0.05)"], [1, 2])
)
def test_first_order_ranks_as_the_counterfactual_does(request, case, optimizer, num_students):
    """Adam's step is not linear in the gradient, so only the ranks can agree. In full: test_credit_slow.py."""
    data, student = case
    keywords = {"student": student, "optimizer": optimizer, "num_students": num_students, "batch_size": 16 // num_students, "updates": 100}
    values = at_rate(taught(start(request.getfixturevalue(data), **keywords), 60), 1e-7)
    assert min(rank_correlations(values["counterfactual"], values["first_order"])) > 0.95
    assert np.isfinite(rank_correlations(values["counterfactual"], values["head"])).all()


@pytest.mark.parametrize("optimizer", ["adam(lr=0.01)", "sgd(lr=0.1,warmup=0.5)"])
def test_the_counterfactual_is_what_a_run_taught_by_one_pair_really_gains(digits_data, optimizer):
    """Against what the same run gains when it is taught with weights of zero, which leaves the momentum."""
    selection = taught(start(digits_data, student="mlp(width=8,dropout=0.3)", optimizer=optimizer), 4)
    run = selection.distillation
    inputs, labels = run.reward_split.at(run.reward_split.positions[0], torch.device("cpu"))

    def loss_after(b, k, weight):
        twin, weights = run.fork(), torch.zeros(5, run.num_teachers, dtype=torch.float64)
        weights[b, k] = weight
        twin.observe()
        twin.apply(Decision({"response": weights}, {"response": 1.0}, run.settings.temperature))
        return twin.student.evaluate(inputs, labels)[0][0]

    values = response(credit.counterfactual, selection)
    for b, k in [(0, 0), (2, 3), (4, 1)]:
        assert float(values[b, k]) == pytest.approx(loss_after(b, k, 0.0) - loss_after(b, k, 1.0), abs=1e-14)
