"""Dropout masks come from a generator of the run's own."""

import random

import numpy as np
import pytest
import torch
from small_runs import digest, drive, start

CASES = {
    "dropout": {"student": "mlp(width=12,dropout=0.3)"},
    "reward labels, dropout": {"student": "mlp(width=12,dropout=0.3)", "reward_ce": 0.5},
    "no dropout": {},
}


@pytest.mark.parametrize("case", CASES)
def test_global_generators_neither_matter_nor_change(digits_data, case):
    def whole_run(disturb):
        run = start(digits_data, **CASES[case])
        for _ in range(12):
            if disturb:
                torch.rand(3)
                np.random.rand(3)  # noqa: NPY002
            run.observe()
            drive(run, 1)
        run.validate()
        run.restore(run.fork().snapshot())
        return digest(run)

    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002

    torch.manual_seed(1)
    before = states()
    undisturbed = whole_run(disturb=False)
    assert states() == before
    torch.manual_seed(2)
    assert whole_run(disturb=True) == undisturbed


def test_masks_differ_from_update_to_update(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.5)", optimizer="sgd(lr=1e-12)", precision="float64")
    dropped = []
    for _ in range(3):
        dropped.append((run.observe().student.features == 0).numpy())
        drive(run, 1)
    assert (dropped[0] != dropped[1]).any()
    assert (dropped[1] != dropped[2]).any()


def test_a_replay_repeats_the_masks_and_does_not_advance(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.5)", precision="float64")
    drive(run, 2)
    features = run.observe().student.features
    states = [state.clone() for state in run.dropout.states]
    with run.dropout.replay():
        replayed = run.student.forward(run.batch_inputs()).features.detach()
    assert torch.equal(replayed, features)
    assert all(torch.equal(before, after) for before, after in zip(states, run.dropout.states, strict=True))
    with run.dropout.draw():
        drawn = run.student.forward(run.batch_inputs()).features.detach()
    assert not torch.equal(drawn, features)
    assert not torch.equal(states[0], run.dropout.states[0])


def test_an_error_within_leaves_the_global_generator_as_it_was(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.5)")
    before = torch.get_rng_state()

    def fail_within(generator):
        with generator():
            torch.rand(3)
            raise ZeroDivisionError

    for generator in (run.dropout.draw, run.dropout.replay):
        with pytest.raises(ZeroDivisionError):
            fail_within(generator)
        assert torch.equal(torch.get_rng_state(), before)


def test_masks_differ_between_rows_and_students_and_follow_from_the_seed(digits_data):
    keywords = {"student": "mlp(width=16,dropout=0.5)", "num_students": 2}
    torch.manual_seed(3)
    run, again, other = (start(digits_data, [seed, seed], **keywords) for seed in (4, 4, 5))
    first = run.observe()
    assert (first.example_ids[:8] == first.example_ids[8:]).all(), "two students alike"
    torch.manual_seed(4)
    outer = torch.get_rng_state()
    dropped = (first.student.features == 0).numpy()
    masks = {row.tobytes() for row in dropped}
    assert len(masks) > 12, "rows have masks of their own"
    assert (dropped[:8] != dropped[8:]).any(), "and so have students"
    assert ((again.observe().student.features == 0).numpy() == dropped).all()
    outcomes = [drive(each, 8) for each in (run, again, other)]
    assert torch.equal(torch.get_rng_state(), outer), "the global generator is left alone"
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert digest(run) == digest(again)
    assert digest(run)[0] != digest(other)[0]
    scores = [value.tolist() for value in run.validate()]
    assert [value.tolist() for value in run.validate()] == scores, "evaluation has no dropout"
    first, second = run.student.theta.detach()
    assert not torch.equal(first, second), "the masks made two students of one"


def test_a_student_that_begins_again_after_a_look_leaves_the_others_their_masks(digits_data):
    keywords = {"student": "mlp(width=16,dropout=0.5)", "num_students": 3, "precision": "float64"}
    run, looked = (start(digits_data, 3, **keywords) for _ in range(2))
    for each in (run, looked):
        drive(each, 3)
    features = looked.observe().student.features
    for each in (run, looked):
        each.reset_student(1, 9)
    again = looked.observe().student.features
    assert torch.equal(again[:8], features[:8])
    assert torch.equal(again[16:], features[16:])
    assert not torch.equal(again[8:16], features[8:16])
    assert drive(looked, 4) == drive(run, 4)
    assert digest(looked) == digest(run)
