"""Students with BatchNorm: which passes move the running statistics, and what reads them."""

import copy

import numpy as np
import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.types import Decision

STUDENTS = ["resnet8(width=2)", "wrn(depth=10,widen=1,dropout=0.2)", "vgg8(width=2)", "mobilenetv2(width=0.1)", "shufflenetv2(width=0.5)"]


def start(data, student="resnet8(width=2)", seed=0, **keywords):
    keywords = {"batch_size": 8, "updates": 20, "optimizer": "sgd(lr=0.02)", **keywords}
    return Distillation(data, distillation_settings(data.task, student=student, **keywords), seed)


def teach(run, updates=1):
    for _ in range(updates):
        run.observe()
        weights = torch.full((run.settings.batch_size, run.num_teachers), 1.0 / run.num_teachers, dtype=run.student.dtype)
        run.apply(Decision({"response": weights}, {"response": 1.0}, 2.0))


def statistics(run):
    return {name: tensor.clone() for name, tensor in run.student.network.named_buffers()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def moved_once(network, pixels, before):
    """The statistics after one pass in training mode of the plain network from ``before``."""
    twin = copy.deepcopy(network)
    for name, buffer in twin.named_buffers():
        buffer.copy_(before[name])
    with torch.no_grad():
        twin.train()(pixels)
    return dict(twin.named_buffers())


@pytest.mark.long
@pytest.mark.parametrize("student", STUDENTS)
def test_an_update_moves_the_statistics_by_its_mini_batch_once_and_nothing_else_does(digits_data, student):
    run = start(digits_data, student)
    before, weights = statistics(run), [parameter.clone() for parameter in run.student.parameters]
    batch = run.observe()
    pixels = digits_data.inputs["train"]["pixel_values"][batch.example_ids]
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), 20, measure="loss")
    meter.start(run.student, np.array([True]))
    for name in ("first_order", "difference", "head"):
        credit.CREDITS[name](run, meter, ["response"])
    run.validate()
    run.snapshot()
    run.fork().observe()
    run.student.predict(run.batch_inputs())
    run.skip()
    run.observe()
    assert equal(statistics(run), before), "observing, credit, rewards, validation, snapshots and forks change nothing"
    assert all(torch.equal(old, new) for old, new in zip(weights, run.student.parameters, strict=True))
    pixels = digits_data.inputs["train"]["pixel_values"][run.observe().example_ids]
    expected = None
    if not run.student.has_dropout:
        expected = moved_once(run.student.network, pixels, before)
    teach(run)
    after = statistics(run)
    counts = [int(value) for name, value in after.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert set(counts) == {1}
    if expected is not None:
        for name, value in after.items():
            torch.testing.assert_close(value, expected[name])
    run.logits_after_update()
    assert equal(statistics(run), after)


def test_reward_examples_that_teach_do_not_move_the_statistics(digits_data):
    runs = [start(digits_data, reward_ce=weight) for weight in (0.0, 0.5)]
    for run in runs:
        teach(run)
    first, second = (statistics(run) for run in runs)
    assert equal(first, second), "they are those of the train mini-batch, which both saw first"
    weights = [run.student.parameters[0] for run in runs]
    assert not torch.equal(*weights), "the reward examples taught"


def test_evaluation_uses_the_statistics(digits_data):
    run = start(digits_data)
    teach(run, 5)
    inputs = digits_data.inputs["validation"]
    network = run.student.network.eval()
    with torch.no_grad():
        expected = torch.cat([network(part).logits for part in inputs["pixel_values"].split(512)])
    assert torch.equal(run.student.predict(inputs), expected)
    network.train()


def test_a_fork_goes_its_own_way(digits_data):
    run = start(digits_data, "wrn(depth=10,widen=1,dropout=0.2)")
    teach(run, 3)
    run.observe()
    twin, before = run.fork(), statistics(run)
    teach(twin, 2)
    assert equal(statistics(run), before)
    teach(run, 2)
    assert equal(run.student.state(), twin.student.state())


def test_a_new_student_begins_without_statistics(digits_data):
    run = start(digits_data, seed=4)
    fresh = statistics(run)
    teach(run, 2)
    run.reset_student(0, 4)
    assert equal(statistics(run), fresh)
    assert equal(run.student.state(), start(digits_data, seed=4).student.state())


def test_the_statistics_are_part_of_the_state(digits_data):
    run = start(digits_data)
    teach(run, 2)
    state = run.student.state_of(0)
    assert any(name.endswith("running_mean") for name in state)
    other = start(digits_data, seed=1)
    other.student.load_state(state)
    assert equal(other.student.state(), state)
    teach(run)
    assert equal(other.student.state(), state), "the state is a copy"


@pytest.mark.parametrize("student", ["resnet8(width=2)", pytest.param("shufflenetv2(width=0.5)", marks=pytest.mark.long)])
def test_first_order_credit_is_the_derivative_in_training_mode(digits_data, student):
    run = start(digits_data, student, optimizer="sgd(lr=0.00001)", precision="float64")
    teach(run, 2)
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), 20, measure="loss")
    first_order, exact = (credit.CREDITS[name](run, meter, ["response"])["response"] for name in ("first_order", "counterfactual"))
    torch.testing.assert_close(first_order, exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))
