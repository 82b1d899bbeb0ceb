"""The state of an environment is complete: snapshots, forks and new students keep or begin every field, also one that is added."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from selections import advance, select, state_of

from kd_env.distillation import reward_meter
from kd_env.distillation.reward_meter import MeterState
from kd_env.distillation.state import per_student


@dataclass
class WithOneMore(MeterState):
    """A meter's state with a field that nothing else in the package knows."""

    lucky_number: np.ndarray = per_student(np.float64, 7.0)


def other_values(values):
    if values.dtype == np.bool_:
        return np.arange(len(values)) % 2 == 1
    return (np.arange(len(values)) + 3).astype(values.dtype)


def changed_selection(data, observed):
    """Three students whose run, meter, gradient, memory and reward labels all differ from those at the start."""
    keywords = {"action": "soft", "granularity": "batch", "exploration_bonus": 0.5, "knowledge": "response,hint", "credit": "head"}
    selection = select(data, [11, 12, 13], [4, 5, 6], num_students=3, **keywords)
    advance(selection, 1)
    for state in (selection.distillation.state, selection.meter.state):
        for field in fields(state):
            setattr(state, field.name, other_values(getattr(state, field.name)))
    selection.meter.gradient = [torch.full_like(tensor, 0.5) for tensor in selection.meter.gradient]
    selection.exploration.memory = [{"gates": [0.25, 0.5]}, {}, {"gates": [1.0, 0.0], "more": 3}]
    if observed:
        selection.distillation.observe()
    return selection


@pytest.mark.parametrize("observed", [False, True])
def test_snapshot_and_fork_keep_every_field(digits_data, monkeypatch, observed):
    monkeypatch.setattr(reward_meter, "MeterState", WithOneMore)
    selection = changed_selection(digits_data, observed)
    assert "lucky_number" in {field.name for field in fields(selection.meter.state)}
    assert selection.meter.gradient_options.head_only
    other = select(
        digits_data,
        70,
        num_students=3,
        **{name: value for name, value in selection.settings.flat().items() if name not in ("num_students",)},
    )
    other.restore(selection.snapshot(np.random.default_rng(0)), np.random.default_rng(1))
    assert state_of(other) == state_of(selection.fork()) == state_of(selection)
    for student in range(3):
        meter = selection.meter.of_student(student, selection.distillation.reward_split.of_student(student))
        for name, values in selection.meter.state.of_student(student).tensors().items():
            kept = [-1] if name == "gradient_update" else values.tolist()  # the gradient is computed again for a student alone
            assert meter.state.tensors()[name].tolist() == kept, name


def test_a_student_that_begins_again_has_every_field_as_declared(digits_data, monkeypatch):
    monkeypatch.setattr(reward_meter, "MeterState", WithOneMore)
    selection = changed_selection(digits_data, observed=False)
    selection.reset_student(1, 99)
    fresh = WithOneMore.start(1)
    fresh.seed[:] = 99
    for field in fields(fresh):
        np.testing.assert_array_equal(getattr(selection.meter.state, field.name)[1:2], getattr(fresh, field.name), field.name)
    assert selection.meter.state.lucky_number.tolist() == [3.0, 7.0, 5.0]
    assert selection.exploration.memory[1] == {}
    assert selection.exploration.memory[2] == {"gates": [1.0, 0.0], "more": 3}
