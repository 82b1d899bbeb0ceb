"""Many students behind one selection: each is paid, measured and credited as it would be alone, whatever becomes of the others."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from pairwise import chosen
from selections import actions_for, advance, pool_of, select, state_of

from kd_env.envs.selection import DIVERGED_REWARD, Selection

IMAGE = {"student": "mlp(width=8)", "num_students": 3, "precision": "float64", "updates": 60, "reward_examples": 20}
TEXT = {
    "student": "tiny-bert(width=8,layers=2,heads=2,dropout=0)",
    "num_students": 2,
    "precision": "float64",
    "updates": 8,
    "batch_size": 6,
    "reward_examples": 8,
}

CASES = {
    "redrawn measurements": ("digits_data", {"optimizer": "adam(lr=0.01)"}, 32),
    "metric, mixed": ("digits_data", {"optimizer": "sgd(lr=0.05,decay=linear)", "measure": "metric", "reward": "mixed"}, 15),
    "labels, now and then": (
        "digits_data",
        {"optimizer": "adamw(lr=0.01,weight_decay=0.1,warmup=0.3,decay=linear)", "kd_weight": 0.5, "reward_every": 7},
        22,
    ),
    "extra reward loss": ("digits_data", {"reward_ce": 0.5, "reward_labels": 21, "optimizer": "adam(lr=0.01)"}, 12),
    "calibrated, head credit": ("digits_data", {"calibrate_teachers": True, "credit": "head", "reward_labels": 21}, 8),
    "first-order credit": ("digits_data", {"credit": "first_order", "optimizer": "adam(lr=0.01)"}, 12),
    "stale first-order credit": ("digits_data", {"credit": "first_order", "credit_refresh": 7, "optimizer": "sgd(lr=0.05)"}, 16),
    "head credit": ("digits_data", {"credit": "head", "credit_refresh": 2, "optimizer": "adam(lr=0.01)"}, 12),
    "counterfactual credit": ("digits_data", {"credit": "counterfactual", "batch_size": 2, "optimizer": "adam(lr=0.01)"}, 6),
    "phases, bonus": (
        "digits_data",
        {"action": "soft", "granularity": "batch", "exploration_bonus": 0.5, "updates_per_phase": 2, "knowledge": "response,hint"},
        8,
    ),
    "text, credit of every type": (
        "layered_data",
        {"knowledge": "response,layer,similarity,attention", "credit": "first_order", "optimizer": "adam(lr=0.003)"},
        3,
    ),
}
"""Data, settings, and how many steps are compared; five times as many in the slow tests."""


def start_case(request, case, seed=5, **changed):
    data, keywords, _ = CASES[case]
    data = request.getfixturevalue(data)
    return select(data, seed, **((IMAGE if data.task.kind == "image" else TEXT) | keywords | changed))


def alone(selection, student, seed):
    """A selection over one student, with the settings of ``selection``."""
    distillation = dataclasses.replace(selection.settings.distillation, num_students=1)
    settings = dataclasses.replace(selection.settings, distillation=distillation)
    lone = Selection(selection.data, pool_of(selection.data), settings, [selection.label_seeds[student]])
    lone.begin(seed)
    return lone


def each_alone(selection):
    return [alone(selection, s, int(seed)) for s, seed in enumerate(selection.distillation.seeds)]


def assert_equal(selection, student, lone, rtol=1e-7, atol=1e-9):
    """What was learned, counted, measured and remembered."""
    state, expected = selection.distillation.student.state_of(student), lone.distillation.student.state()
    assert state.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(state[name], expected[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    for part, expected in ((selection.distillation.state, lone.distillation.state), (selection.meter.state, lone.meter.state)):
        for name, values in expected.tensors().items():
            np.testing.assert_allclose(part.of_student(student).tensors()[name], values, rtol=1e-7, atol=1e-9, err_msg=name)
            assert values.is_floating_point() or part.of_student(student).tensors()[name].tolist() == values.tolist(), name
    memory, expected = selection.exploration.memory[student], lone.exploration.memory[0]
    assert memory.keys() == expected.keys()
    assert all(memory[name] == pytest.approx(expected[name]) for name in memory)


def of_student(values, student, num_students):
    return None if values is None else np.asarray(values).reshape(num_students, -1)[student]


def follow(selection, apart, steps):
    """Teach all and each; every step says the same."""
    count = selection.num_students
    for _ in range(steps):
        going = ~selection.distillation.done
        step = selection.advance(actions_for(selection))
        for s, lone in enumerate(apart):
            if not going[s]:
                assert not of_student(step.rewards, s, count).any()
                continue
            expected = lone.advance(actions_for(lone))
            for name in ("example_ids", "update", "progress"):
                assert (of_student(getattr(step.batch, name), s, count) == getattr(expected.batch, name)).all(), name
            assert step.diverged[s] == expected.diverged[0]
            assert step.reward_terms.keys() == expected.reward_terms.keys()
            assert step.credit.keys() == expected.credit.keys()
            if expected.diverged[0]:
                assert (of_student(step.rewards, s, count) == DIVERGED_REWARD).all()
                continue
            np.testing.assert_allclose(of_student(step.student_ce, s, count), expected.student_ce, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(of_student(step.rewards, s, count), expected.rewards, rtol=1e-6, atol=1e-7)
            for name, values in expected.reward_terms.items():
                np.testing.assert_allclose(of_student(step.reward_terms[name], s, count), values, rtol=1e-6, err_msg=name)
            for name, values in expected.credit.items():
                scale = np.abs(values).max()
                np.testing.assert_allclose(of_student(step.credit[name], s, count), values.ravel(), rtol=1e-6, atol=1e-6 * scale)
            for name in ("improvement", "validation"):
                measured, wanted = getattr(step, name), getattr(expected, name)
                if wanted is None:
                    assert measured is None or np.isnan(measured[s])
                else:
                    assert measured[s] == pytest.approx(wanted[0], abs=1e-8)


def damage(selection, student, value):
    """One of the student's parameters becomes ``value``."""
    students = selection.distillation.student
    with torch.no_grad():
        if selection.num_students > 1:
            students.theta[student, 5] = value
        else:
            vector = torch.nn.utils.parameters_to_vector(students.parameters)
            vector[5] = value
            torch.nn.utils.vector_to_parameters(vector, students.parameters)


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_each_student_is_paid_and_measured_as_it_would_be_alone(request, case, times):
    steps = CASES[case][2] * times
    updates = start_case(request, case).settings.distillation.updates
    selection = start_case(request, case, updates=updates * times, num_students=2)
    apart = each_alone(selection)
    before, _ = selection.distillation.validate()
    follow(selection, apart, steps)
    loss, metric = selection.distillation.validate()
    for s, lone in enumerate(apart):
        assert_equal(selection, s, lone)
        np.testing.assert_allclose((loss[s], metric[s]), [value[0] for value in lone.distillation.validate()], rtol=1e-7)
    assert len(set(loss.tolist())) == len(loss), "students differ"
    assert (np.abs(loss - before) > 1e-3).all(), "and have learned"


def test_each_student_may_have_reward_labels_of_its_own(digits_data):
    selection = select(digits_data, [9, 2], [7, 3], **IMAGE | {"reward_labels": 30, "num_students": 2})
    rows = selection.distillation.reward_split.rows
    assert (rows[0] != rows[1]).any()
    apart = each_alone(selection)
    follow(selection, apart, 12)
    for s, lone in enumerate(apart):
        assert (rows[s] == lone.distillation.reward_split.rows[0]).all()
        assert_equal(selection, s, lone)


def test_all_have_the_same_reward_labels_by_default(request):
    selection = start_case(request, "extra reward loss", label_seed=4)
    rows = selection.distillation.reward_split.rows
    assert (rows == rows[0]).all()
    assert rows.shape == (3, 21)
    other = start_case(request, "extra reward loss", label_seed=5).distillation.reward_split.rows
    assert (rows[0] != other[0]).any()


BROKEN = {
    "redrawn measurements": ("redrawn measurements", "nan"),
    "metric, mixed": ("metric, mixed", "inf"),
    "stale credit": ("stale first-order credit", "nan"),
    "head credit": ("head credit", "inf"),
}


@pytest.mark.parametrize(
    ("name", "observed"),
    chosen(
        itertools.product(BROKEN, [False, True]),
        [("redrawn measurements", False), ("metric, mixed", True), ("stale credit", True), ("head credit", False)],
    ),
)
def test_numbers_that_are_not_finite_stay_in_their_student_which_can_begin_again(request, name, observed):
    """Another student takes the place of the broken one, at its own point of schedule, data and draws."""
    case, value = BROKEN[name]
    selection = start_case(request, case, updates=24, validation_every=4)
    apart = each_alone(selection)
    follow(selection, apart, 9)
    for broken, student in ((selection, 1), (apart[1], 0)):
        damage(broken, student, float(value))
    follow(selection, apart, 1)
    run = selection.distillation
    assert run.diverged.tolist() == [False, True, False]
    assert selection.finished[1].update.tolist() == [10]
    follow(selection, apart, 3)
    assert run.update.tolist() == [13, 10, 13], "a student that diverged is taught no more"
    if observed:
        run.observe()
        if selection.credit is not None:
            selection.credit(run, selection.meter, list(run.loss.terms), None)
    apart[1] = alone(selection, 1, 77)
    selection.reset_student(1, 77)
    assert_equal(selection, 1, apart[1])
    assert not run.diverged.any()
    follow(selection, apart, 11)
    for s in (0, 2):
        assert run.done[s]
        if observed and name == "stale credit":  # the credit looked at and dropped was a forward pass
            apart[s].distillation.state.forward_examples += run.settings.batch_size
        assert_equal(selection, s, apart[s])
    follow(selection, apart, 13)
    assert run.done.all()
    assert_equal(selection, 1, apart[1])


def test_students_that_are_left_out_stay_as_they_are(request):
    selection = start_case(request, "redrawn measurements")
    apart = each_alone(selection)
    follow(selection, apart, 5)
    kept, meter = selection.distillation.student.state_of(1), selection.meter.state.of_student(1).tensors()
    for _ in range(3):
        step = selection.advance(actions_for(selection), np.array([True, False, True]))
        assert not of_student(step.rewards, 1, 3).any()
        for lone in (apart[0], apart[2]):
            lone.advance(actions_for(lone))
    assert selection.distillation.update.tolist() == [8, 5, 8]
    assert all(torch.equal(value, kept[name]) for name, value in selection.distillation.student.state_of(1).items())
    assert all(torch.equal(value, meter[name]) for name, value in selection.meter.state.of_student(1).tensors().items())
    for _ in range(2):
        selection.advance(actions_for(selection), np.array([False, True, False]))
        apart[1].advance(actions_for(apart[1]))
    for s, lone in enumerate(apart):
        lone.distillation.state.forward_examples[:] = selection.distillation.state.forward_examples[s]  # a forward pass is one of all
        assert_equal(selection, s, lone)


@pytest.mark.parametrize(
    ("case", "observed"),
    chosen(
        itertools.product(["redrawn measurements", "metric, mixed", "first-order credit"], [False, True]),
        [("redrawn measurements", True), ("metric, mixed", False), ("first-order credit", True)],
    ),
)
def test_run_and_meter_of_a_member_continue_as_among_the_others(request, case, observed):
    selection = start_case(request, case, updates=40)
    advance(selection, 6)
    selection.reset_student(1, 50)
    advance(selection, 5)
    if observed:
        selection.distillation.observe()
    before = state_of(selection)
    members = []
    for s in range(3):
        lone = alone(selection, s, 0)
        lone.distillation = selection.distillation.member(s)
        lone.meter = selection.meter.of_student(s, lone.distillation.reward_split)
        members.append(lone)
    advance(members[0].fork(), 2)
    assert state_of(selection) == before
    follow(selection, members, 12)
    for s, member in enumerate(members):
        assert_equal(selection, s, member, rtol=1e-10, atol=1e-10)
