"""The held-out gradient as a running mean of gradients of few examples."""

import numpy as np
import pytest
import torch
from small_runs import drive, start

from kd_env.distillation.reward_meter import GradientOptions, RewardMeter

FEW = GradientOptions(examples=8, decay=0.75)


def runs(data, num_students=1, gradient_refresh=1):
    run = start(data, list(range(5, 5 + num_students)), num_students=num_students, student="mlp(width=8)", precision="float64")
    return run, RewardMeter(run.reward_split, run.seeds.tolist(), 40, "loss", gradient_refresh)


def flat(gradient, num_students=1):
    return torch.cat([tensor.reshape(num_students, -1) for tensor in gradient], 1)


def each_and_mean(data, num_students=1, gradient_refresh=1, updates=5):
    """The gradients of the draws alone, and the running means, ``[updates, S, P]`` each."""
    run, meter = runs(data, num_students, gradient_refresh)
    alone, means = [], []
    for _ in range(updates):
        single = RewardMeter(run.reward_split, run.seeds.tolist(), 40, "loss")
        alone.append(flat(single.held_out_gradient(run.student, run.update, GradientOptions(examples=8)), num_students).clone())
        means.append(flat(meter.held_out_gradient(run.student, run.update, FEW), num_students).clone())
        drive(run, 1)
    return torch.stack(alone), torch.stack(means), meter


@pytest.mark.parametrize("num_students", [1, 3])
def test_the_mean_weighs_earlier_gradients_less(digits_data, num_students):
    alone, means, meter = each_and_mean(digits_data, num_students)
    for number in range(len(means)):
        weights = torch.tensor([0.75 ** (number - earlier) for earlier in range(number + 1)], dtype=torch.float64)
        expected = torch.tensordot(weights / weights.sum(), alone[: number + 1], 1)
        torch.testing.assert_close(means[number], expected, rtol=1e-9, atol=1e-12)
    assert meter.state.forward_examples.tolist() == [5 * 8] * num_students


def test_it_changes_as_often_as_a_gradient_is_computed(digits_data):
    alone, means, meter = each_and_mean(digits_data, gradient_refresh=2)
    assert torch.equal(means[1], means[0])
    torch.testing.assert_close(means[2], (0.75 * alone[0] + alone[2]) / 1.75, rtol=1e-9, atol=1e-12)
    assert torch.equal(means[3], means[2])
    assert meter.state.forward_examples.tolist() == [3 * 8]


def test_a_student_that_begins_again_begins_a_mean_of_its_own(digits_data):
    run, meter = runs(digits_data, 2)
    for _ in range(2):
        meter.held_out_gradient(run.student, run.update, FEW)
        drive(run, 1)
    run.reset_student(1, 40)
    meter.reset_student(1, 40)
    mean = flat(meter.held_out_gradient(run.student, run.update, FEW), 2)
    fresh = RewardMeter(run.reward_split, [5, 40], 40, "loss")
    alone = flat(fresh.held_out_gradient(run.student, run.update, GradientOptions(examples=8)), 2)
    torch.testing.assert_close(mean[1], alone[1], rtol=1e-12, atol=1e-15)
    assert not torch.allclose(mean[0], alone[0])
    assert meter.state.gradient_weight.tolist() == [1 + 0.75 * (1 + 0.75), 1.0]


@pytest.mark.parametrize("options", [FEW, GradientOptions()])
def test_the_mean_of_a_student_that_diverged_does_not_outlive_it(digits_data, options):
    run, meter = runs(digits_data, 3)
    for _ in range(2):
        gradient = meter.held_out_gradient(run.student, run.update, options)
        drive(run, 1)
    for tensor in gradient:
        tensor[1] = float("nan")
    run.reset_student(1, 40)
    meter.reset_student(1, 40)
    mean = flat(meter.held_out_gradient(run.student, run.update, options), 3)
    fresh = RewardMeter(run.reward_split, [5, 40, 7], 40, "loss")
    alone = flat(fresh.held_out_gradient(run.student, run.update, GradientOptions(examples=options.examples)), 3)
    assert torch.equal(mean[1], alone[1])
    assert mean.isfinite().all()


def test_other_options_begin_a_new_mean(digits_data):
    run, meter = runs(digits_data)
    meter.held_out_gradient(run.student, run.update, FEW)
    drive(run, 1)
    smoothed = GradientOptions(smoothing=-0.3, examples=8, decay=0.75)
    mean = flat(meter.held_out_gradient(run.student, run.update, smoothed))
    fresh = RewardMeter(run.reward_split, run.seeds.tolist(), 40, "loss")
    assert torch.equal(mean, flat(fresh.held_out_gradient(run.student, run.update, smoothed)))


@pytest.mark.parametrize("num_students", [1, 2])
def test_a_loaded_meter_continues_the_mean_to_the_last_bit(digits_data, num_students):
    run, meter = runs(digits_data, num_students)
    for _ in range(3):
        meter.held_out_gradient(run.student, run.update, FEW)
        drive(run, 1)
    loaded = RewardMeter(run.reward_split, run.seeds.tolist(), 40, "loss")
    loaded.load(meter.tensors(), meter.info(), torch.device("cpu"))
    expected = meter.held_out_gradient(run.student, run.update, FEW)
    assert all(torch.equal(a, b) for a, b in zip(loaded.held_out_gradient(run.student, run.update, FEW), expected, strict=True))


def test_more_examples_than_labels_are_all_labels(digits_data):
    run, meter = runs(digits_data)
    meter.held_out_gradient(run.student, run.update, GradientOptions(examples=10**6))
    assert meter.state.forward_examples.tolist() == [run.reward_split.num_labels]
    assert np.isfinite(meter.gradient[0].numpy()).all()
