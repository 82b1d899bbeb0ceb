"""The course of a run: observing, skipping, epochs, the budget, seeds, divergence, a new student."""

import numpy as np
import pytest
import torch
from small_runs import digest, drive, start, weights_for

from kd_env.errors import InputError
from kd_env.types import Decision


@pytest.mark.parametrize("student", ["mlp", "mlp(dropout=0.5)"])
def test_observing_again_costs_nothing_and_changes_nothing(digits_data, student):
    once, often = start(digits_data, student=student), start(digits_data, student=student)
    for run, times in ((once, 1), (often, 4)):
        for update in range(3):
            batches = [run.observe() for _ in range(times)]
            assert all(batch is batches[0] for batch in batches)
            assert run.state.forward_examples.tolist() == [8 * (update + 1)]
            drive(run, 1)
    assert digest(once) == digest(often)


def test_a_batch_holds_what_student_and_bank_say(digits_data):
    run = start(digits_data, student="mlp(width=12)", updates=4)
    drive(run, 1)
    batch = run.observe()
    rows = batch.example_ids
    assert (batch.update.tolist(), batch.progress.tolist()) == ([1], [0.25])
    assert torch.equal(batch.labels, digits_data.labels["train"][rows])
    teachers = digits_data.bank.gather("train", rows)
    assert (batch.teacher_logits.numpy() == teachers.logits).all()
    assert [features.shape for features in batch.teacher_features] == [(8, 128)] * 4
    logits = run.student.predict({"pixel_values": digits_data.inputs["train"]["pixel_values"][rows]})
    torch.testing.assert_close(batch.student.logits, logits)
    assert not batch.student.logits.requires_grad
    assert batch is run.batch


def test_logits_after_the_update_are_of_the_same_mini_batch(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.3)")
    rows, before = run.observe().example_ids, run.observe().student.logits
    drive(run, 1)
    after = run.logits_after_update()
    torch.testing.assert_close(after, run.student.predict({"pixel_values": digits_data.inputs["train"]["pixel_values"][rows]}))
    assert not torch.equal(after, before)
    assert run.state.forward_examples.tolist() == [16]


def test_skipping_goes_on_without_learning(digits_data):
    run, taught = start(digits_data), start(digits_data)
    weights = [parameter.detach().clone() for parameter in run.student.parameters]
    run.observe()
    run.skip()
    drive(taught, 1)
    assert run.batch is None
    assert run.update.tolist() == [1]
    assert (run.observe().example_ids == taught.observe().example_ids).all(), "the mini-batch that follows"
    assert all(torch.equal(a, b) for a, b in zip(weights, run.student.parameters, strict=True))


def test_an_epoch_shows_every_example_at_most_once_and_the_next_in_another_order(text_data):
    run = start(text_data, student="tiny-bert(width=8,layers=1,dropout=0)", batch_size=48, updates=6)
    rows = []
    while not run.done:
        rows.append(run.observe().example_ids)
        drive(run, 1)
    epochs = [np.concatenate(rows[:3]), np.concatenate(rows[3:])]
    assert all(len(set(epoch)) == 3 * 48 for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_the_budget_ends_the_run(digits_data):
    run = start(digits_data, updates=2)
    drive(run, 2)
    assert run.done.tolist() == [True]
    with pytest.raises(InputError, match="no student is left to teach"):
        drive(run, 1)


def test_seeds_decide_everything(digits_data):
    runs = [start(digits_data, seed=seed, student="mlp(dropout=0.3)") for seed in (5, 5, 6)]
    outcomes = [drive(run, 4) for run in runs]
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert digest(runs[0]) == digest(runs[1])
    assert digest(runs[0])[0] != digest(runs[2])[0]


def test_a_mini_batch_larger_than_the_training_split_is_refused(digits_data):
    with pytest.raises(InputError, match="batch_size=3589 is more than the 3588"):
        start(digits_data, batch_size=3589)


@pytest.mark.parametrize("student", ["mlp", "mlp(width=12,dropout=0.3)"])
def test_divergence_ends_the_run_and_takes_no_step(digits_data, student):
    run = start(digits_data, student=student, optimizer="sgd(lr=1e30)")
    outcomes = []
    while not run.done:
        run.observe()
        outcomes.append(run.apply(Decision.response(torch.full((8, 4), 0.25), 1.0, 2.0)))
    assert [outcome.diverged.tolist() for outcome in outcomes] == [[False]] * (len(outcomes) - 1) + [[True]]
    assert len(outcomes) < 5
    assert run.diverged.tolist() == [True]


def test_a_loss_that_is_not_finite_takes_no_step(digits_data):
    run = start(digits_data)
    before = [parameter.detach().clone() for parameter in run.student.network.parameters()]
    outcome = run.apply(Decision.response(torch.full((8, 4), float("nan")), 1.0, 2.0))
    assert outcome.diverged.tolist() == [True]
    assert run.done.tolist() == [True]
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.network.parameters(), strict=True))


def test_a_lone_student_can_begin_again(digits_data):
    keywords = {"student": "mlp(width=12,dropout=0.3)", "optimizer": "adam(lr=0.01)"}
    run, fresh = start(digits_data, 2, **keywords), start(digits_data, 9, **keywords)
    drive(run, 3)
    run.reset_student(0, 9)
    fresh.dropout.states = run.dropout.states  # the generator of a run goes on
    assert digest(run) == digest(fresh)
    assert drive(run, 3) == drive(fresh, 3)
    assert digest(run) == digest(fresh)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("student", ["mlp(width=12,dropout=0.3)", "tiny-vit(width=8,layers=1,dropout=0.2)"])
def test_on_cuda_a_run_follows_the_cpu_s_and_is_restored(digits_data, student):
    without = student.replace("0.3", "0").replace("0.2", "0")
    keywords = {"student": without, "precision": "float64", "optimizer": "sgd(lr=0.05)"}
    host, device = start(digits_data, device="cpu", **keywords), start(digits_data, device="cuda", **keywords)
    for run in (host, device):
        for _ in range(4):
            weights = weights_for(run).to(run.student.device)
            run.apply(Decision.response(weights, 1.0, 2.0))
    for on_cpu, on_cuda in zip(host.student.network.parameters(), device.student.network.parameters(), strict=True):
        torch.testing.assert_close(on_cpu, on_cuda.cpu(), rtol=0, atol=1e-6)
    run = start(digits_data, device="cuda", student=student)
    run.observe()
    twin = run.fork()
    assert torch.equal(run.observe().student.logits, twin.observe().student.logits)
