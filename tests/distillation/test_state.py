"""State with one value per student: declared once, and everywhere complete."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from small_runs import drive, start

from kd_env.distillation import run as run_module
from kd_env.distillation import snapshot
from kd_env.distillation.reward_meter import MeterState
from kd_env.distillation.state import PerStudent, RunState, per_student


@dataclass
class Counters(PerStudent):
    count: np.ndarray = per_student(np.int64)
    score: np.ndarray = per_student(np.float64, np.nan)
    ended: np.ndarray = per_student(np.bool_)
    age: np.ndarray = per_student(np.int64, -1)


def other_values(values):
    """Values of the same type that all differ from those that a student begins with, and from each other where they can."""
    if values.dtype == np.bool_:
        return np.arange(len(values)) % 2 == 1
    return (np.arange(len(values)) + 3).astype(values.dtype)


def assert_equal(state, expected):
    assert type(state) is type(expected)
    for field in fields(expected):
        values, wanted = getattr(state, field.name), getattr(expected, field.name)
        assert values.dtype == wanted.dtype, field.name
        np.testing.assert_array_equal(values, wanted, field.name)


@pytest.fixture
def counters():
    state = Counters.start(3)
    for field in fields(state):
        setattr(state, field.name, other_values(getattr(state, field.name)))
    return state


def test_state_starts_as_declared():
    state = Counters.start(2)
    assert_equal(state, Counters(np.zeros(2, np.int64), np.full(2, np.nan), np.zeros(2, np.bool_), np.full(2, -1)))


def test_one_student_s_state_is_reset_to_what_was_declared(counters):
    counters.reset(1)
    assert_equal(counters.of_student(1), Counters.start(1))
    assert counters.count.tolist() == [3, 0, 5]
    assert counters.score.tolist()[::2] == [3.0, 5.0]


def test_a_student_s_part_is_a_copy(counters):
    part = counters.of_student(2)
    assert (part.count.tolist(), part.score.tolist(), part.ended.tolist(), part.age.tolist()) == ([5], [5.0], [False], [5])
    part.count[0] = 99
    assert counters.count.tolist() == [3, 4, 5]


def test_tensors_are_copies_and_give_the_state_back(counters):
    tensors = counters.tensors()
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "count": torch.int64,
        "score": torch.float64,
        "ended": torch.bool,
        "age": torch.int64,
    }
    again = Counters.from_tensors(tensors)
    assert_equal(again, counters)
    counters.count[:] = 0
    again.age[:] = 0
    assert tensors["count"].tolist() == tensors["age"].tolist() == [3, 4, 5]


@pytest.mark.parametrize("kind", [RunState, MeterState])
def test_every_field_is_documented(kind):
    for field in fields(kind):
        assert f"\n        {field.name}: " in kind.__doc__, field.name


# The state of a run is complete


@dataclass
class WithOneMore(RunState):
    """A run's state with a field that nothing else in the package knows."""

    lucky_number: np.ndarray = per_student(np.int64, 7)


@pytest.fixture
def one_more_field(monkeypatch):
    """What a new field takes: its declaration."""
    for module in (run_module, snapshot):
        monkeypatch.setattr(module, "RunState", WithOneMore)


def changed_run(data, observed, seed=0):
    """Three students in which every field of the state has other values than at the start."""
    run = start(data, seed, num_students=3, student="mlp(width=8)")
    drive(run, 1)
    for field in fields(run.state):
        setattr(run.state, field.name, other_values(getattr(run.state, field.name)))
    if observed:
        run.observe()
    return run


@pytest.mark.parametrize("observed", [False, True])
def test_snapshot_fork_and_member_keep_every_field(digits_data, one_more_field, observed):
    run = changed_run(digits_data, observed)
    assert "lucky_number" in {field.name for field in fields(run.state)}
    other = start(digits_data, 50, num_students=3, student="mlp(width=8)")
    other.restore(run.snapshot())
    for copied in (other, run.fork()):
        assert_equal(copied.state, run.state)
        assert all(getattr(copied.state, field.name) is not getattr(run.state, field.name) for field in fields(run.state))
    for student in range(3):
        member = run.of_student(student)
        if observed:
            member.observe()
        assert_equal(member.state, run.state.of_student(student))


def test_a_student_that_begins_again_has_every_field_as_declared(digits_data, one_more_field):
    run = changed_run(digits_data, observed=False)
    before = run.state.of_student(0), run.state.of_student(2)
    run.reset_student(1, 61)
    fresh = start(digits_data, 61, student="mlp(width=8)")
    assert_equal(run.state.of_student(1), fresh.state)
    assert run.state.lucky_number.tolist() == [3, 7, 5]
    for student, kept in zip((0, 2), before, strict=True):
        assert_equal(run.state.of_student(student), kept)
