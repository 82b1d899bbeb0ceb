"""When students are measured: every so often and at the end, before and after, and never so that they notice."""

import numpy as np
import pytest
import torch
from playing import KNOWLEDGE, batch, recorded_steps
from selections import select, uniform
from torch.nn.functional import cross_entropy

STUDENT = {"student": "mlp(width=8)", "batch_size": 8, "precision": "float64", "action": "weights"}


def start(data, seed=0, **keywords):
    return select(data, seed, **STUDENT | {"reward_labels": 0} | keywords)


def held_out(selection):
    """Loss and accuracy on the labelled reward examples, computed here."""
    run = selection.distillation
    (rows,) = run.reward_split.positions
    inputs = {name: tensor[rows].double() for name, tensor in run.data.inputs["reward"].items()}
    labels = run.data.labels["reward"][rows]
    with torch.no_grad():
        logits = run.student.network(**inputs).logits
    return float(cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


@pytest.mark.parametrize(("measure", "sign", "value"), [("loss", -1, 0), ("metric", 1, 1)])
def test_rewards_telescope_to_the_whole_improvement(digits_data, measure, sign, value):
    learning = {"updates": 25, "kd_weight": 0.0, "optimizer": "adam(lr=0.02)"}
    selection = start(digits_data, reward_labels=50, reward_examples=50, measure=measure, **learning)
    before = held_out(selection)[value]
    steps = [selection.advance(uniform(selection)) for _ in range(25)]
    after = held_out(selection)[value]
    assert sum(step.improvement.item() for step in steps) == pytest.approx(sign * (after - before), abs=1e-6)
    assert sum(step.rewards.mean() for step in steps) == pytest.approx(sign * (after - before), abs=1e-6)
    assert abs(after - before) > 0.01


@pytest.mark.parametrize(
    ("every", "measured"),
    [(1, list(range(1, 13))), (5, [5, 10, 12]), (4, [4, 8, 12]), (0, [12]), (100, [12])],
)
def test_improvement_is_measured_every_so_often_and_at_the_end(digits_data, every, measured):
    selection = start(digits_data, updates=12, reward_every=every, reward_labels=40)
    before, _ = held_out(selection)
    improvements = {}
    for update in range(1, 13):
        step = selection.advance(uniform(selection))
        if step.improvement is not None:
            improvements[update] = step.improvement.item()
            assert step.rewards.tolist() == pytest.approx([improvements[update]] * 8)
        else:
            assert not step.rewards.any()
    after, _ = held_out(selection)
    assert list(improvements) == measured
    assert sum(improvements.values()) == pytest.approx(before - after, abs=1e-10)
    assert selection.meter.state.forward_examples.tolist() == [40 * (1 + len(measured))]


@pytest.mark.parametrize(("keywords", "examples"), [({"reward": "student_loss"}, 0), ({"credit": "head"}, 3 * 256)])
def test_an_improvement_that_is_not_paid_is_not_measured(digits_data, keywords, examples):
    selection = start(digits_data, updates=3, **keywords)
    assert [selection.advance(uniform(selection)).improvement for _ in range(3)] == [None] * 3
    assert selection.meter.state.measurements.tolist() == [0]
    assert selection.meter.state.forward_examples.tolist() == [examples], "a held-out gradient for each update is what credit takes"


@pytest.mark.parametrize("student", ["mlp(width=8)", "mlp(width=8,dropout=0.3)"])
def test_measuring_does_not_touch_the_student(digits_data, student):
    selections = [
        start(digits_data, student=student, updates=25, reward_every=every, reward_examples=examples, validation_every=validation)
        for every, examples, validation in ((0, 256, 0), (1, 30, 1), (3, 256, 25))
    ]
    for selection in selections:
        while not selection.distillation.done:
            selection.advance(uniform(selection))
    weights = [torch.cat([p.detach().flatten() for p in selection.distillation.student.parameters]) for selection in selections]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_an_improvement_that_is_not_finite_ends_the_student(digits_data):
    """Its own loss is finite: the mini-batch does not read what is broken."""
    selection = start(digits_data, updates=5, reward_labels=40)
    selection.advance(uniform(selection))
    evaluate = selection.distillation.student.evaluate
    selection.distillation.student.evaluate = lambda *arguments, **options: (np.array([np.nan]), evaluate(*arguments, **options)[1])
    step = selection.advance(uniform(selection))
    assert step.diverged.tolist() == selection.distillation.done.tolist() == [True]
    assert np.isnan(step.improvement).all()
    assert step.validation is None or np.isnan(step.validation).all()
    assert step.rewards.tolist() == [-10.0] * 8


def test_a_validation_loss_that_is_not_finite_ends_the_student(digits_data):
    selection = start(digits_data, updates=5, reward_labels=40, validation_every=2)
    run = selection.distillation
    validate = run.validate
    run.validate = lambda: (np.array([np.inf]), validate()[1])
    first, second = (selection.advance(uniform(selection)) for _ in range(2))
    assert first.diverged.tolist() == [False], "it is not due yet"
    assert second.diverged.tolist() == [True]
    assert np.isnan(second.validation).all()
    assert second.rewards.tolist() == [-10.0] * 8


def test_a_student_without_a_held_out_loss_diverges_alone(text_data):
    """A word that its mini-batch does not hold can still break its measurement."""
    keywords = {"student": "tiny-bert(width=8,layers=1,dropout=0)", "num_students": 2, "batch_size": 1, "updates": 4, "action": "weights"}
    selection, lone = select(text_data, 5, **keywords), select(text_data, 5, **keywords | {"num_students": 1})
    run = selection.distillation
    rows = set(run.observe().example_ids.tolist())
    words = {row: set(text_data.inputs["train"]["input_ids"][row].tolist()) for row in rows}
    measured = text_data.inputs["reward"]["input_ids"][run.reward_split.positions[1]].flatten().tolist()
    elsewhere = next(word for word in measured if all(word not in of_row for of_row in words.values()))
    run.forget_batch()
    embedding = next(name for name in run.student._shapes if "word_embeddings" in name)
    with torch.no_grad():
        run.student._parts(run.student.theta)[embedding][1, elsewhere] = float("nan")
    step, expected = (each.advance(uniform(each)) for each in (selection, lone))
    assert step.diverged.tolist() == [False, True]
    assert step.improvement[0] == pytest.approx(expected.improvement[0], abs=1e-6)
    assert np.isnan(step.improvement[1])
    assert step.rewards[1] == -10.0


# Phases


@pytest.mark.parametrize(("every", "measured"), [(1, [3, 6, 9, 10]), (4, [6, 10]), (0, [10])])
def test_there_is_at_most_one_measurement_per_phase(every, measured):
    """On one draw, before and after: a draw of its own begins between phases only."""
    env = batch(KNOWLEDGE, updates=10, updates_per_phase=3, reward_every=every)
    env.reset(seed=0)
    selection, updates = env.unwrapped.selection, []
    for _ in range(4):
        before = int(selection.meter.state.measurements[0])
        *_, info = env.step(env.action_space.sample())
        assert selection.meter.state.measurements[0] - before == ("improvement" in info["reward_terms"])
        if "improvement" in info["reward_terms"]:
            updates.append(int(selection.distillation.update[0]))
    assert updates == measured


def test_the_last_validation_of_a_phase_is_shown():
    env = batch(KNOWLEDGE, updates=10, updates_per_phase=4, validation_every=3)
    env.reset(seed=0)
    steps, run = recorded_steps(env), env.unwrapped.distillation
    shown = [env.step(env.action_space.sample())[4]["validation"] for _ in range(3)]
    measured = {number: float(step.validation[0]) for number, step in enumerate(steps, 1) if step.validation is not None}
    assert list(measured) == [3, 6, 9, 10]
    assert shown == [measured[3], measured[6], measured[10]]
    assert shown[-1] == run.validate()[1][0]
