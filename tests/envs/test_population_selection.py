"""Many students behind one selection: each is paid, measured and credited as it would be alone, whatever becomes of the others."""

import itertools

import numpy as np
import pytest
import torch
from pairwise import chosen
from selections import actions_for, advance, select, state_of
from selections_apart import CASES, IMAGE, alone, assert_equal, damage, each_alone, follow, of_student, start_case


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
    rows = selection.distillation.reward_split.positions
    assert (rows[0] != rows[1]).any()
    apart = each_alone(selection)
    follow(selection, apart, 12)
    for s, lone in enumerate(apart):
        assert (rows[s] == lone.distillation.reward_split.positions[0]).all()
        assert_equal(selection, s, lone)


def test_all_have_the_same_reward_labels_by_default(request):
    selection = start_case(request, "extra reward loss", label_seed=4)
    rows = selection.distillation.reward_split.positions
    assert (rows == rows[0]).all()
    assert rows.shape == (3, 21)
    other = start_case(request, "extra reward loss", label_seed=5).distillation.reward_split.positions
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
        if selection.credit_function is not None:
            selection.credit_function(run, selection.meter, list(run.loss.terms), None)
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
        lone.distillation = selection.distillation.of_student(s)
        lone.meter = selection.meter.of_student(s, lone.distillation.reward_split)
        members.append(lone)
    advance(members[0].fork(), 2)
    assert state_of(selection) == before
    follow(selection, members, 12)
    for s, member in enumerate(members):
        assert_equal(selection, s, member, rtol=1e-10, atol=1e-10)
