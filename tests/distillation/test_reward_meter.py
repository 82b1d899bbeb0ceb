"""The reward meter: paired measurement, and the held-out gradient."""

import numpy as np
import pytest
import torch
from small_runs import drive, start
from torch.nn.functional import cross_entropy

from kd_env.distillation.reward_meter import MEASUREMENTS_PER_DRAW, GradientOptions, RewardMeter
from kd_env.distillation.reward_split import RewardSplit
from kd_env.models.networks import build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student

NOW, EVERYONE = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.bool_)


@pytest.fixture
def student(digits_data):
    network = build("mlp(width=8,dropout=0.3)", digits_data.task, 0)
    return Student(network, OptimizerOptions.of("adam"), torch.device("cpu"), "float64")


def meter_of(data, examples, labels=1200, measure="loss", seed=0, gradient_refresh=1):
    return RewardMeter(RewardSplit(data, labels, [0]), [seed], examples, measure, gradient_refresh)


def nudge(student, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def labels_of(data, images):
    images_of_all = data.inputs["reward"]["pixel_values"]
    by_image = {image.numpy().tobytes(): label for image, label in zip(images_of_all, data.labels["reward"], strict=True)}
    return torch.stack([by_image[image.numpy().tobytes()] for image in images])


def recording(student):
    """The images that the student is evaluated on from now on, and its ``evaluate`` that does not record."""
    images, evaluate = [], student.evaluate
    student.evaluate = lambda inputs, labels: images.append(inputs["pixel_values"]) or evaluate(inputs, labels)
    return images, evaluate


@pytest.mark.parametrize(("measure", "sign", "value"), [("loss", -1, 0), ("metric", 1, 1)])
def test_improvement_is_measured_on_the_same_examples_before_and_after(digits_data, student, measure, sign, value):
    meter = meter_of(digits_data, 64, measure=measure)
    assert (meter.unmeasured.tolist(), meter.metric.tolist()) == ([True], [0.0])
    images, evaluate = recording(student)
    meter.start(student, EVERYONE)
    assert meter.unmeasured.tolist() == [False]
    for step in range(MEASUREMENTS_PER_DRAW - 1):
        before = evaluate({"pixel_values": images[-1]}, labels_of(digits_data, images[-1]))[value]
        nudge(student, step)
        after = evaluate({"pixel_values": images[-1]}, labels_of(digits_data, images[-1]))[value]
        assert meter.improvement(student, EVERYONE).tolist() == pytest.approx((sign * (after - before)).tolist(), abs=1e-12)
        assert torch.equal(images[-1], images[-2])
    assert meter.metric.tolist() == evaluate({"pixel_values": images[-1]}, labels_of(digits_data, images[-1]))[1].tolist()


def test_a_new_draw_begins_with_a_measurement_of_its_own(digits_data, student):
    meter = meter_of(digits_data, 64)
    images, _ = recording(student)
    meter.start(student, EVERYONE)
    improvements = [meter.improvement(student, EVERYONE).tolist() for _ in range(2 * MEASUREMENTS_PER_DRAW)]
    assert improvements == [[0.0]] * 2 * MEASUREMENTS_PER_DRAW, "an idle student does not improve"
    draws = {batch.numpy().tobytes() for batch in images}
    assert len(draws) == 3
    assert len(images) == 1 + 2 * MEASUREMENTS_PER_DRAW + 2
    assert meter.state.forward_examples.tolist() == [64 * len(images)]


def test_without_more_labels_than_examples_the_draw_is_fixed_and_measured_once_per_improvement(digits_data, student):
    meter = meter_of(digits_data, 64, labels=40)
    meter.start(student, EVERYONE)
    for _ in range(2 * MEASUREMENTS_PER_DRAW):
        meter.improvement(student, EVERYONE)
    assert meter.examples == 40
    assert meter.state.forward_examples.tolist() == [40 * (1 + 2 * MEASUREMENTS_PER_DRAW)]


def test_draws_follow_from_the_seed(digits_data):
    def improvements(seed):
        meter = meter_of(digits_data, 16, seed=seed)
        student = Student(build("mlp(width=8)", digits_data.task, 0), OptimizerOptions(), torch.device("cpu"), "float64")
        meter.start(student, EVERYONE)
        values = []
        for step in range(3):
            nudge(student, step)
            np.random.seed(step)  # noqa: NPY002  (the global generator must not matter)
            values.append(meter.improvement(student, EVERYONE).tolist())
        return values

    assert improvements(1) == improvements(1)
    assert improvements(1) != improvements(2)


def test_a_student_that_begins_again_is_measured_anew(digits_data, student):
    meter, fresh = meter_of(digits_data, 16, seed=3), meter_of(digits_data, 16, seed=8)
    meter.start(student, EVERYONE)
    meter.improvement(student, EVERYONE)
    meter.reset_student(0, 8)
    assert meter.unmeasured.tolist() == [True]
    for each in (meter, fresh):
        each.start(student, EVERYONE)
        assert each.improvement(student, EVERYONE).tolist() == [0.0]
    assert all(torch.equal(tensor, fresh.tensors()[name]) for name, tensor in meter.tensors().items())


@pytest.mark.parametrize("head_only", [False, True])
def test_the_held_out_gradient_is_that_of_the_held_out_loss(digits_data, student, head_only):
    meter = meter_of(digits_data, 40, labels=40)
    gradients = meter.held_out_gradient(student, NOW, GradientOptions(head_only=head_only))
    names = [name for name, _ in student.network.named_parameters()]
    student.network.eval()
    inputs, labels = meter.split.at(meter.split.positions[0])
    loss = cross_entropy(student.network(inputs["pixel_values"].double()).logits, labels)
    expected = torch.autograd.grad(loss, list(student.network.parameters()))
    student.network.train()
    for name, gradient, reference in zip(names, gradients, expected, strict=True):
        below = head_only and not name.startswith("classifier")
        torch.testing.assert_close(gradient, torch.zeros_like(reference) if below else reference, rtol=1e-12, atol=1e-15)
    assert student.network.training
    assert meter.held_out_loss(student, student.parameters, NOW).tolist() == pytest.approx([float(loss.detach())], rel=1e-12)


def test_the_held_out_gradient_is_kept_for_as_long_as_asked(digits_data, student):
    meter = meter_of(digits_data, 32, gradient_refresh=3)
    gradients = []
    for update in range(7):
        nudge(student, update)
        gradients.append(meter.held_out_gradient(student, np.array([update])))
    assert [gradients[i] is gradients[0] for i in range(4)] == [True, True, True, False]
    assert [gradients[i] is gradients[3] for i in range(3, 7)] == [True, True, True, False]
    assert meter.state.forward_examples.tolist() == [3 * 32]


def test_a_gradient_of_the_head_does_not_serve_for_all(digits_data, student):
    meter = meter_of(digits_data, 32)
    meter.held_out_gradient(student, NOW, GradientOptions(head_only=True))
    gradients = meter.held_out_gradient(student, NOW)
    assert min(gradient.abs().max() for gradient in gradients) > 0


def test_the_gradient_takes_fresh_examples_each_update(digits_data, student):
    meter = meter_of(digits_data, 32)
    first, again, following = (meter.held_out_loss(student, student.parameters, np.array([update])).item() for update in (0, 0, 1))
    assert student.network.training
    assert first == again != following


def test_a_loaded_meter_goes_on_to_the_last_bit(digits_data, student):
    """Also one that has measured other students before."""
    meter, other = meter_of(digits_data, 16, gradient_refresh=4), meter_of(digits_data, 16, seed=9, gradient_refresh=4)
    for each, head_only in ((meter, True), (other, False)):
        each.start(student, EVERYONE)
        each.held_out_gradient(student, NOW, GradientOptions(head_only=head_only))
        for step in range(MEASUREMENTS_PER_DRAW - 1):
            nudge(student, step)
            each.improvement(student, EVERYONE)
    other.load(meter.tensors(), meter.info(), torch.device("cpu"))
    nudge(student, 77)
    for each in (meter, other):
        each.loaded = [each.improvement(student, EVERYONE).tolist() for _ in range(2)]
        each.loaded += [gradient.tolist() for gradient in each.held_out_gradient(student, NOW + 2, GradientOptions(head_only=True))]
        each.loaded += [each.gradient_options, each.state.tensors()["forward_examples"].tolist()]
        each.loaded += [gradient.tolist() for gradient in each.held_out_gradient(student, NOW + 2)]
    assert meter.loaded == other.loaded


# Populations


POPULATION = {"student": "mlp(width=8)", "num_students": 3, "precision": "float64"}


def population(data, gradient_refresh=1, **keywords):
    """Three students that have learned a little, and a meter that has not measured them."""
    run = start(data, [5, 6, 7], reward_labels=0, **POPULATION | keywords)
    drive(run, 2)
    return run, RewardMeter(run.reward_split, run.seeds.tolist(), 20, "loss", gradient_refresh)


@pytest.mark.parametrize("refresh", [1, 5])
def test_a_gradient_of_the_heads_of_a_population_does_not_serve_for_all(digits_data, refresh):
    run, meter = population(digits_data, refresh)
    meter.held_out_gradient(run.student, run.update, GradientOptions(head_only=True))
    whole = meter.held_out_gradient(run.student, run.update)[0]
    _, fresh = population(digits_data, refresh)
    assert torch.equal(whole, fresh.held_out_gradient(run.student, run.update)[0])


def test_one_student_s_measurement_does_not_move_the_others(digits_data):
    run, meter = population(digits_data)
    meter.start(run.student, np.ones(3, dtype=np.bool_))
    before = meter.state.tensors()
    improvement = meter.improvement(run.student, np.array([False, True, False]))
    assert np.isnan(improvement).tolist() == [True, False, True]
    assert improvement[1] == 0.0, "it has not learned since"
    after = meter.state.tensors()
    assert (after.pop("measurements") - before.pop("measurements")).tolist() == [0, 1, 0]
    assert (after.pop("forward_examples") - before.pop("forward_examples")).tolist() == [0, 20, 0]
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_each_student_is_measured_as_it_would_be_alone(digits_data):
    run, meter = population(digits_data)
    everyone = np.ones(3, dtype=np.bool_)
    meter.start(run.student, everyone)
    alone = [(run.of_student(s), meter.of_student(s, run.reward_split.of_student(s))) for s in range(3)]
    for update in range(2 * MEASUREMENTS_PER_DRAW + 1):
        drive(run, 1)
        due = everyone if update % 3 else np.array([True, False, True])
        improvement = meter.improvement(run.student, due)
        gradient = meter.held_out_gradient(run.student, run.update)[0]
        for s, (member, own_meter) in enumerate(alone):
            drive(member, 1)
            own_gradient = torch.cat([part.flatten() for part in own_meter.held_out_gradient(member.student, member.update)])
            torch.testing.assert_close(gradient[s], own_gradient, rtol=1e-7, atol=1e-10)
            if due[s]:
                assert improvement[s] == pytest.approx(own_meter.improvement(member.student, EVERYONE)[0], abs=1e-10)
    for s, (_, own_meter) in enumerate(alone):
        for name, values in meter.state.of_student(s).tensors().items():
            torch.testing.assert_close(values, own_meter.state.tensors()[name], rtol=1e-7, atol=1e-9)


def test_a_stale_gradient_is_replaced_for_the_student_that_began_again_alone(digits_data):
    run, meter = population(digits_data, gradient_refresh=7)
    first = meter.held_out_gradient(run.student, run.update)[0].clone()
    drive(run, 2)
    run.reset_student(1, 40)
    meter.reset_student(1, 40)
    second = meter.held_out_gradient(run.student, run.update)[0]
    assert torch.equal(second[[0, 2]], first[[0, 2]])
    assert not torch.equal(second[1], first[1])
    fresh, own_meter = (
        start(digits_data, 40, reward_labels=0, student="mlp(width=8)", precision="float64"),
        meter_of(digits_data, 20, seed=40),
    )
    expected = torch.cat([part.flatten() for part in own_meter.held_out_gradient(fresh.student, fresh.update)])
    torch.testing.assert_close(second[1], expected, rtol=1e-7, atol=1e-10)
    assert meter.state.gradient_update.tolist() == [2, 0, 2]
    assert meter.state.forward_examples.tolist() == [20, 20, 20]
