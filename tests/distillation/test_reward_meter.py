"""The reward meter: paired measurement, and the held-out gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import REDRAW, RewardMeter, labelled_rows
from kd_env.envs.settings import settings
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student
from kd_env.types import Decision


@pytest.fixture
def student(digits_data):
    network = build("mlp(width=8,dropout=0.3)", digits_data.task, 0)
    return Student(network, OptimizerOptions.of("adam"), torch.device("cpu"), "float64")


NOW, EVERYONE = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.bool_)


def meter_of(data, examples, labels=1200, measure="loss", seed=0):
    meter = RewardMeter(data.inputs["reward"], data.labels["reward"], np.arange(labels)[None], examples, measure)
    meter.reset_student(0, seed)
    return meter


def nudge(student, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def start(data, seed=0, **keywords):
    keywords = {"student": "mlp(width=8)", "batch_size": 8, "precision": "float64"} | keywords
    return Distillation(data, settings(data.task, **keywords), seed)


def uniform(run):
    weights = torch.full((run.settings.batch_size, run.num_teachers), 1 / run.num_teachers, dtype=run.student.dtype)
    return Decision.response(weights, run.settings.kd_weight, run.settings.temperature)


def held_out(run):
    """Loss and accuracy on the labelled reward examples, computed here."""
    rows = run.meter.rows[0]
    inputs = {name: tensor[rows].double() for name, tensor in run.data.inputs["reward"].items()}
    labels = run.data.labels["reward"][rows]
    with torch.no_grad():
        logits = run.student.network(**inputs).logits
    return float(cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


@pytest.mark.parametrize(("measure", "sign", "value"), [("loss", -1, 0), ("metric", 1, 1)])
def test_improvement_is_measured_on_the_same_examples_before_and_after(digits_data, student, measure, sign, value):
    meter, seen = meter_of(digits_data, 64, measure=measure), []
    evaluate = student.evaluate
    student.evaluate = lambda inputs, labels: seen.append(inputs["pixel_values"]) or evaluate(inputs, labels)
    meter.start(student, EVERYONE)
    for step in range(REDRAW - 1):
        before = evaluate({"pixel_values": seen[-1]}, labels_of(digits_data, seen[-1]))[value]
        nudge(student, step)
        after = evaluate({"pixel_values": seen[-1]}, labels_of(digits_data, seen[-1]))[value]
        assert meter.improvement(student, EVERYONE).tolist() == pytest.approx((sign * (after - before)).tolist(), abs=1e-12)
        assert torch.equal(seen[-1], seen[-2])
    assert meter.metric.tolist() == evaluate({"pixel_values": seen[-1]}, labels_of(digits_data, seen[-1]))[1].tolist()


def labels_of(data, images):
    images_of_all = data.inputs["reward"]["pixel_values"]
    every = {image.numpy().tobytes(): label for image, label in zip(images_of_all, data.labels["reward"], strict=True)}
    return torch.stack([every[image.numpy().tobytes()] for image in images])


def test_a_new_draw_begins_with_a_measurement_of_its_own(digits_data, student):
    meter, seen = meter_of(digits_data, 64), []
    evaluate = student.evaluate
    student.evaluate = lambda inputs, labels: seen.append(inputs["pixel_values"]) or evaluate(inputs, labels)
    meter.start(student, EVERYONE)
    found = [meter.improvement(student, EVERYONE).tolist() for _ in range(2 * REDRAW)]
    assert found == [[0.0]] * 2 * REDRAW, "an idle student does not improve"
    draws = {images.numpy().tobytes() for images in seen}
    assert len(draws) == 3
    assert len(seen) == 1 + 2 * REDRAW + 2
    assert meter.forward_examples.tolist() == [64 * len(seen)]


def test_without_more_labels_than_examples_the_draw_is_fixed_and_measured_once_an_improvement(digits_data, student):
    meter = meter_of(digits_data, 64, labels=40)
    meter.start(student, EVERYONE)
    for _ in range(2 * REDRAW):
        meter.improvement(student, EVERYONE)
    assert meter.examples == 40
    assert meter.forward_examples.tolist() == [40 * (1 + 2 * REDRAW)]


def test_draws_follow_from_the_seed(digits_data, student):
    def improvements(seed):
        meter, twin = (
            meter_of(digits_data, 16, seed=seed),
            Student(build("mlp(width=8)", digits_data.task, 0), OptimizerOptions(), torch.device("cpu"), "float64"),
        )
        meter.start(twin, EVERYONE)
        found = []
        for step in range(3):
            nudge(twin, step)
            np.random.seed(step)  # noqa: NPY002  (the global generator must not matter)
            found.append(meter.improvement(twin, EVERYONE).tolist())
        return found

    assert improvements(1) == improvements(1)
    assert improvements(1) != improvements(2)


def test_rewards_telescope_to_the_whole_decrease(digits_data):
    run = start(digits_data, updates=25, reward_labels=50, reward_examples=50, kd_weight=0.0, optimizer="adam(lr=0.02)")
    before, _ = held_out(run)
    rewards = [run.apply(uniform(run)).improvement.item() for _ in range(25)]
    after, _ = held_out(run)
    assert sum(rewards) == pytest.approx(before - after, abs=1e-6)
    assert before - after > 0.01


def test_metric_rewards_telescope_to_the_whole_increase(digits_data):
    run = start(digits_data, updates=25, reward_labels=50, measure="metric", kd_weight=0.0, optimizer="adam(lr=0.02)")
    _, before = held_out(run)
    rewards = [run.apply(uniform(run)).improvement.item() for _ in range(25)]
    _, after = held_out(run)
    assert sum(rewards) == pytest.approx(after - before, abs=1e-6)
    assert after != before


@pytest.mark.parametrize(
    ("every", "measured"),
    [(1, list(range(1, 13))), (5, [5, 10, 12]), (4, [4, 8, 12]), (0, [12]), (100, [12])],
)
def test_improvement_is_measured_every_so_often_and_at_the_end(digits_data, every, measured):
    run = start(digits_data, updates=12, reward_every=every, reward_labels=40)
    before, _ = held_out(run)
    found = {}
    for update in range(1, 13):
        outcome = run.apply(uniform(run))
        if outcome.improvement is not None:
            found[update] = outcome.improvement.item()
    after, _ = held_out(run)
    assert list(found) == measured
    assert sum(found.values()) == pytest.approx(before - after, abs=1e-10)
    assert run.meter.forward_examples.tolist() == [40 * (1 + len(measured))]


@pytest.mark.parametrize("keywords", [{"reward": "student_loss"}, {"credit": "head"}])
def test_what_is_not_paid_is_not_measured(digits_data, keywords):
    run = start(digits_data, updates=3, **keywords)
    assert [run.apply(uniform(run)).improvement for _ in range(3)] == [None] * 3
    assert run.meter.forward_examples.tolist() == [0]


@pytest.mark.parametrize("student", ["mlp(width=8)", "mlp(width=8,dropout=0.3)"])
def test_measuring_does_not_touch_the_student(digits_data, student):
    runs = [
        start(digits_data, student=student, updates=25, reward_every=every, reward_examples=examples)
        for every, examples in ((0, 256), (1, 30), (3, 256))
    ]
    for run in runs:
        while not run.done:
            run.apply(uniform(run))
    weights = [torch.cat([p.detach().flatten() for p in run.student.network.parameters()]) for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("head_only", [False, True])
def test_the_held_out_gradient_is_that_of_the_held_out_loss(digits_data, student, head_only):
    meter = meter_of(digits_data, 40, labels=40)
    found = meter.held_out_gradient(student, NOW, refresh=1, head_only=head_only)
    names = [name for name, _ in student.network.named_parameters()]
    student.network.eval()
    images, labels = digits_data.inputs["reward"]["pixel_values"][:40], digits_data.labels["reward"][:40]
    loss = cross_entropy(student.network(images.double()).logits, labels)
    expected = torch.autograd.grad(loss, list(student.network.parameters()))
    student.network.train()
    for name, gradient, reference in zip(names, found, expected, strict=True):
        below = head_only and not name.startswith("classifier")
        torch.testing.assert_close(gradient, torch.zeros_like(reference) if below else reference, rtol=1e-12, atol=1e-15)
    assert student.network.training
    assert meter.held_out_loss(student, student.parameters, NOW).tolist() == pytest.approx([float(loss.detach())], rel=1e-12)


def test_the_held_out_gradient_is_kept_for_as_long_as_asked(digits_data, student):
    meter = meter_of(digits_data, 32)
    taken = []
    for update in range(7):
        nudge(student, update)
        taken.append(meter.held_out_gradient(student, np.array([update]), refresh=3))
    assert [taken[i] is taken[0] for i in range(4)] == [True, True, True, False]
    assert [taken[i] is taken[3] for i in range(3, 7)] == [True, True, True, False]
    assert meter.forward_examples.tolist() == [3 * 32]


def test_a_gradient_of_the_head_does_not_serve_for_all(digits_data, student):
    meter = meter_of(digits_data, 32)
    meter.held_out_gradient(student, NOW, refresh=1, head_only=True)
    found = meter.held_out_gradient(student, NOW, refresh=1)
    assert min(gradient.abs().max() for gradient in found) > 0


def test_the_gradient_takes_fresh_examples_each_update(digits_data, student):
    meter = meter_of(digits_data, 32)
    first, again, next_ = (meter.held_out_loss(student, student.parameters, np.array([update])).item() for update in (0, 0, 1))
    assert student.network.training
    assert first == again != next_


@pytest.mark.parametrize("count", [1, 10, 37, 100, 0])
def test_labelled_rows_are_distinct_proportional_and_nested(digits_data, count):
    labels = digits_data.labels["reward"].numpy()
    rows, everything = labelled_rows(labels, count, seed=4), labelled_rows(labels, 0, seed=4)
    assert len(rows) == len(set(rows)) == (count or 1200)
    assert (rows == everything[: len(rows)]).all()
    share = np.bincount(labels, minlength=10) / len(labels)
    assert (np.abs(np.bincount(labels[rows], minlength=10) - share * len(rows)) <= 2).all()


def test_labelled_rows_follow_from_the_seed_and_cannot_exceed_what_there_is(digits_data):
    labels = digits_data.labels["reward"].numpy()
    assert (labelled_rows(labels, 30, 1) == labelled_rows(labels, 30, 1)).all()
    assert (labelled_rows(labels, 30, 1) != labelled_rows(labels, 30, 2)).any()
    with pytest.raises(InputError, match="reward_labels=1201: the reward split has 1200"):
        start(digits_data, reward_labels=1201)


def test_only_the_labelled_rows_are_ever_read(digits_data):
    """With other labels on every other row the run is the same."""
    run = start(digits_data, updates=3, reward_labels=30)
    labels = digits_data.labels["reward"].clone()
    hidden = np.setdiff1d(np.arange(len(labels)), run.meter.rows)
    assert len(hidden) == 1170
    poisoned = {**digits_data.inputs["reward"]}
    poisoned["pixel_values"] = poisoned["pixel_values"].clone()
    poisoned["pixel_values"][hidden] = float("nan")
    inputs = {**digits_data.inputs, "reward": poisoned}
    other = start(replace(digits_data, inputs=inputs), updates=3, reward_labels=30)
    found = [[one.apply(uniform(one)).improvement.item() for _ in range(3)] for one in (run, other)]
    assert found[0] == found[1]
