"""A run's update is a plain training step, and its seeds decide everything."""

import dataclasses

import pytest
import torch
from pairwise import pairwise
from small_runs import digest, drive, start, weights_for

from kd_env.distillation import Distillation
from kd_env.models.networks import build
from kd_env.types import Decision

OPTIMIZERS = {
    "sgd(lr=0.1)": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam(lr=0.003)": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
    "adamw(lr=0.003,weight_decay=0.1)": lambda parameters: torch.optim.AdamW(parameters, lr=0.003, weight_decay=0.1),
}
STUDENTS = [
    ("digits_data", "mlp(width=12)"),
    ("digits_data", "tiny-vit(width=8,layers=1)"),
    ("text_data", "tiny-bert(width=8,layers=1,dropout=0)"),
]


def plain_loss(logits, teacher_logits, labels, weights, kd_weight, temperature):
    """The loss written out again: sums over classes, instance by instance."""
    total = 0.0
    for b in range(len(logits)):
        q, z = (logits[b] / temperature).softmax(0), logits[b]
        for k in range(weights.shape[1]):
            p = (teacher_logits[b, k] / temperature).softmax(0)
            total = total + kd_weight * weights[b, k] * temperature**2 * (p * (p.log() - q.log())).sum()
        total = total + (1 - kd_weight) * (z.exp().sum().log() - z[labels[b]])
    return total / len(logits)


def assert_parameters_equal(run, network, tolerance):
    for parameter, expected in zip(run.student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("case", "optimizer", "kd_weight"), pairwise(STUDENTS, OPTIMIZERS, [0.0, 0.5, 1.0]))
def test_an_update_is_a_plain_training_step(request, case, optimizer, kd_weight):
    data, student = request.getfixturevalue(case[0]), case[1]
    run = start(data, seed=3, student=student, kd_weight=kd_weight, temperature=3.0, optimizer=optimizer, precision="float64")
    network = build(student, data.task, 3).double()
    plain = OPTIMIZERS[optimizer](list(network.parameters()))
    for _ in range(4):
        rows, weights = run.observe().example_ids, weights_for(run)
        outcome = run.apply(Decision.response(weights, kd_weight, 3.0))
        inputs = run.student.cast({name: tensor[rows] for name, tensor in data.inputs["train"].items()})
        teacher_logits = torch.from_numpy(data.bank.gather("train", rows).logits).double()
        loss = plain_loss(network(**inputs).logits, teacher_logits, data.task.train.labels[rows], weights, kd_weight, 3.0)
        plain.zero_grad()
        loss.backward()
        plain.step()
        assert outcome.loss.tolist() == pytest.approx([float(loss.detach())], abs=1e-6)
    assert_parameters_equal(run, network, 1e-6)
    change = list(run.student.network.parameters())[-1] - list(build(student, data.task, 3).parameters())[-1]
    assert change.abs().max() > 1e-3, "the student learned something"


def test_an_update_is_a_plain_training_step_in_single_precision_too(digits_data):
    run = start(digits_data, student="mlp(width=12)", kd_weight=0.5, optimizer="sgd(lr=0.1)")
    network = build("mlp(width=12)", digits_data.task, 0)
    plain = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(6):
        rows, weights = run.observe().example_ids, weights_for(run)
        run.apply(Decision.response(weights, 0.5, 2.0))
        teacher_logits = torch.from_numpy(digits_data.bank.gather("train", rows).logits)
        logits = network(digits_data.inputs["train"]["pixel_values"][rows]).logits
        plain.zero_grad()
        plain_loss(logits, teacher_logits, digits_data.task.train.labels[rows], weights, 0.5, 2.0).backward()
        plain.step()
    assert_parameters_equal(run, network, 1e-6)


def test_reward_ce_is_the_plain_cross_entropy_of_reward_examples(digits_data):
    keywords = {"student": "mlp(width=12)", "optimizer": "sgd(lr=1)", "precision": "float64"}
    run = start(digits_data, reward_ce=0.3, reward_labels=6, **keywords)
    network = build("mlp(width=12)", digits_data.task, 0).double()
    rows, weights = run.observe().example_ids, weights_for(run)
    drive(run, 1)  # 6 labels are fewer than a mini-batch: all of them are used
    reward_positions = run.reward_split.positions
    assert reward_positions.shape == (1, 6)
    images, labels = (
        digits_data.inputs["reward"]["pixel_values"][reward_positions[0]].double(),
        digits_data.labels["reward"][reward_positions[0]],
    )
    logits = network(digits_data.inputs["train"]["pixel_values"][rows].double()).logits
    teacher_logits = torch.from_numpy(digits_data.bank.gather("train", rows).logits).double()
    loss = plain_loss(logits, teacher_logits, digits_data.task.train.labels[rows], weights, 1.0, 2.0)
    (loss + 0.3 * torch.nn.functional.cross_entropy(network(images).logits, labels)).backward()
    for parameter, expected in zip(run.student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected - expected.grad, rtol=0, atol=1e-10)
    assert run.state.forward_examples.tolist() == [8 + 6]


def test_a_decision_may_weigh_reward_ce_for_each_student(digits_data):
    """A student without it is one of a run without it; the strength of a student is the mean over its rows."""
    keywords = {"student": "mlp(width=12)", "optimizer": "sgd(lr=1)", "precision": "float64", "reward_labels": 6}

    def taught(strength=None, reward_ce=0.4, students=1):
        run = start(digits_data, reward_ce=reward_ce, num_students=students, **keywords)
        for _ in range(2):
            plain = Decision.response(weights_for(run), 1.0, 2.0)
            strengths = plain.strengths if strength is None else {**plain.strengths, "reward_ce": strength}
            run.apply(dataclasses.replace(plain, strengths=strengths))
        return run

    without, by_default, half = taught(reward_ce=0.0), taught(), taught(reward_ce=0.2)
    assert digest(taught(0.4)) == digest(by_default)
    assert digest(taught(0.2)) == digest(half)
    assert digest(taught(0.0)) == digest(without)
    assert digest(taught(0.0)) != digest(by_default)
    assert taught(0.0).state.forward_examples.tolist() == without.state.forward_examples.tolist(), "no pass that teaches nothing"
    column = torch.tensor([0.1, 0.3] * 4 + [0.0] * 8 + [0.4] * 8, dtype=torch.float64)
    together = taught(column, students=3)
    assert together.state.forward_examples.tolist() == [2 * (8 + 6), 2 * 8, 2 * (8 + 6)]
    for student, strength in enumerate([0.2, 0.0, 0.4]):
        alone = start(digits_data, seed=together.seeds[student], reward_ce=0.4, **keywords)
        for _ in range(2):
            plain = Decision.response(weights_for(alone), 1.0, 2.0)
            alone.apply(dataclasses.replace(plain, strengths={**plain.strengths, "reward_ce": strength}))
        for of_population, of_alone in zip(together.of_student(student).student.parameters, alone.student.parameters, strict=True):
            torch.testing.assert_close(of_population, of_alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.7, 8.82])
def test_equal_strengths_of_reward_ce_are_the_number(digits_data, strength):
    def student(**reward_ce_strength):
        run = start(digits_data, reward_ce=strength, student="mlp(width=12)", reward_labels=6)
        plain = Decision.response(weights_for(run), 1.0, 2.0)
        run.apply(dataclasses.replace(plain, strengths={**plain.strengths, **reward_ce_strength}))
        return digest(run)

    of_setting, of_decision, of_rows = student(), student(reward_ce=strength), student(reward_ce=torch.full((8,), strength))
    assert of_setting == of_decision == of_rows


def test_reward_ce_trains_on_all_reward_labels_by_default(digits_data):
    settings = start(digits_data, reward_ce=0.5).settings
    by_default, explicit = Distillation(digits_data, settings, 3), start(digits_data, 3, reward_labels=0, reward_ce=0.5)
    assert by_default.reward_split.num_labels == 1200
    assert drive(by_default, 3) == drive(explicit, 3)
    assert digest(by_default) == digest(explicit)


def test_without_teachers_at_full_kd_weight_there_is_no_gradient(digits_data):
    run = start(digits_data, kd_weight=1.0, optimizer="sgd(lr=1)")
    before = [parameter.detach().clone() for parameter in run.student.network.parameters()]
    outcome = run.apply(Decision.response(torch.zeros(8, 4), 1.0, 2.0))
    assert outcome.loss.tolist() == [0.0]
    assert all(not parameter.grad.any() for parameter in run.student.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.network.parameters(), strict=True))


@pytest.mark.parametrize("kd_weight", [0.0, 0.4])
def test_without_teachers_below_full_kd_weight_the_label_is_left(digits_data, kd_weight):
    run = start(digits_data, optimizer="sgd(lr=1)", precision="float64")
    rows, network = run.observe().example_ids, build(run.settings.student, digits_data.task, 0).double()
    outcome = run.apply(Decision.response(torch.zeros(8, 4, dtype=torch.float64), kd_weight, 2.0))
    labels = digits_data.labels["train"][rows]
    ce = torch.nn.functional.cross_entropy(network(digits_data.inputs["train"]["pixel_values"][rows].double()).logits, labels)
    ((1 - kd_weight) * ce).backward()
    assert outcome.loss.tolist() == pytest.approx([(1 - kd_weight) * float(ce.detach())], rel=1e-10)
    for parameter, expected in zip(run.student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected - expected.grad, rtol=0, atol=1e-10)


def test_at_full_kd_weight_training_labels_teach_nothing(digits_data):
    labels = digits_data.labels | {"train": (digits_data.labels["train"] + 1) % 10}
    runs = [start(data) for data in (digits_data, dataclasses.replace(digits_data, labels=labels))]
    for run in runs:
        drive(run, 5)
    assert digest(runs[0])[0] == digest(runs[1])[0]
