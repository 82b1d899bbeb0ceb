"""Teachers that change during a run: each student is taught by the old ones until its own change, and by the new ones from then on."""

import numpy as np
import pytest
import torch
from small_runs import decide, digest, drive, start

from kd_env import tasks
from kd_env.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.teachers import load_pool

UPDATES, CHANGE = 9, 5  # the fifth update starts at 5 / 9 of the budget, which is the first after a half


@pytest.fixture(scope="module")
def drift_data():
    """Digits with the experts whose domains rotate by one at half of the budget."""
    task = tasks.load("digits")
    return EncodedTask.of(task, open_bank(task, load_pool("digits/drift", task)))


def begin(data, seed=0, **keywords):
    return start(data, seed, **({"updates": UPDATES, "student": "mlp(width=8)"} | keywords))


def expected(data, example_ids, changed):
    """Logits and features ``[B, K, ...]`` of the teachers, rotated by one if ``changed``."""
    outputs = data.bank.gather("train", example_ids)
    features = np.stack(outputs.features, 1)
    return [np.roll(values, -1, axis=1) if changed else values for values in (outputs.logits, features)]


def assert_taught_by(data, batch, rows, changed):
    logits, features = expected(data, batch.example_ids[rows], changed)
    assert np.array_equal(batch.teacher_logits[rows].numpy(), logits)
    assert np.array_equal(torch.stack(batch.teacher_features, 1)[rows].numpy(), features)


def test_the_teachers_of_a_mini_batch_change_at_the_stated_progress(drift_data):
    run = begin(drift_data)
    for update in range(UPDATES):
        assert_taught_by(drift_data, run.observe(), slice(None), update >= CHANGE)
        run.apply(decide(run))
    assert run.done.all()


def test_a_run_is_the_one_without_drift_until_the_change(digits_data, drift_data):
    run, constant = begin(drift_data), begin(digits_data)
    outcomes, expected_outcomes = drive(run, UPDATES), drive(constant, UPDATES)
    assert outcomes[: CHANGE + 1] != expected_outcomes[: CHANGE + 1]
    assert outcomes[:CHANGE] == expected_outcomes[:CHANGE]


def test_reward_and_validation_rows_keep_the_first_teachers(drift_data):
    run = begin(drift_data)
    drive(run, UPDATES - 1)
    batch, rows = run.observe(), np.arange(8)
    for split in ("reward", "validation"):
        handed = drift_data.batch(split, rows, batch.student, batch.update, batch.progress)
        assert np.array_equal(handed.teacher_logits.numpy(), drift_data.bank.gather(split, rows).logits)


def test_students_of_a_population_change_at_their_own_progress(drift_data):
    run, size = begin(drift_data, num_students=3, precision="float64"), 8
    drive(run, 4)
    run.reset_student(1, 77)
    active = np.array([True, True, False])
    for _ in range(3):
        run.apply(decide(run), active)
    assert run.update.tolist() == [7, 3, 4]
    batch = run.observe()
    for student, changed in enumerate([True, False, False]):
        assert_taught_by(drift_data, batch, slice(student * size, (student + 1) * size), changed)
    member = run.of_student(0)
    assert_taught_by(drift_data, member.observe(), slice(None), True)
    assert_taught_by(drift_data, run.of_student(2).observe(), slice(None), False)


def test_a_population_is_taught_as_each_student_alone(drift_data):
    together = begin(drift_data, 3, num_students=2, precision="float64")
    drive(together, UPDATES)
    for student in range(2):
        alone = begin(drift_data, 3 + student, precision="float64")
        drive(alone, UPDATES)
        for name, value in alone.student.state().items():
            torch.testing.assert_close(together.student.state_of(student)[name], value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("at", [2, CHANGE - 1, CHANGE, 7])
@pytest.mark.parametrize("observed", [False, True])
def test_a_snapshot_on_either_side_of_the_change_continues_to_the_last_bit(drift_data, at, observed):
    run = begin(drift_data, seed=2)
    drive(run, at)
    if observed:
        run.observe()
    state, fork = run.snapshot(), run.fork()
    outcomes = drive(run, UPDATES - at)
    other = begin(drift_data, seed=9)
    drive(other, 8 if at < CHANGE else 1)  # on the other side
    other.restore(state)
    assert drive(other, UPDATES - at) == outcomes
    assert drive(fork, UPDATES - at) == outcomes
    assert digest(other) == digest(run) == digest(fork)
