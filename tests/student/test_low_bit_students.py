"""Quantised students learn alone and in populations, credit follows them, and snapshots continue bit for bit."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.errors import InputError
from kd_env.models.low_bit import layers_of
from kd_env.models.networks import build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.population import Population
from kd_env.student.student import Student
from kd_env.types import Decision

CPU = torch.device("cpu")
MLP_ = "mlp(width=12,depth=2,bits=4,outer_bits=4)"
STUDENTS = [
    ("digits_data", MLP_),
    ("digits_data", "resnet8(width=2,bits=4)"),
    ("text_data", "tiny-bert(width=8,layers=1,dropout=0.1,bits=4)"),
]


def start(data, student=MLP_, seed=0, **keywords):
    keywords = {"batch_size": 8, "updates": 20, "optimizer": "adam(lr=0.003)", **keywords}
    return Distillation(data, distillation_settings(data.task, student=student, **keywords), seed)


def teach(run, updates=1):
    losses = []
    for _ in range(updates):
        rows = len(run.observe().labels)
        weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers, dtype=run.student.dtype)
        losses.append(float(run.apply(Decision({"response": weights}, {"response": 1.0}, 2.0)).loss[0]))
    return losses


@pytest.mark.parametrize(("data", "student"), STUDENTS)
def test_steps_and_weights_learn_and_a_snapshot_continues_bit_for_bit(request, data, student):
    run = start(request.getfixturevalue(data), student)
    before = {name: value.clone() for name, value in run.student.network.named_parameters()}
    teach(run, 3)
    moved = {name for name, value in run.student.network.named_parameters() if not torch.equal(value, before[name])}
    assert all(f"{name}.{kind}_quantizer.log_step" in moved for name, _ in layers_of(run.student.network) for kind in ("weight", "input"))
    state = run.snapshot()
    expected = teach(run, 3)
    other = start(request.getfixturevalue(data), student, seed=5)
    other.restore(state)
    assert teach(other, 3) == expected


def test_a_pass_changes_nothing(digits_data):
    run = start(digits_data, "resnet8(width=2,bits=4)")
    teach(run, 2)
    before = {name: value.clone() for name, value in run.student.state().items()}
    run.observe()
    run.validate()
    assert all(torch.equal(value, before[name]) for name, value in run.student.state().items())


@pytest.mark.long
def test_a_population_learns_what_its_students_learn_alone(digits_data):
    options = OptimizerOptions.of("adamw(lr=0.003,weight_decay=0.1)")
    networks = [[build(MLP_, digits_data.task, seed) for seed in (0, 1)] for _ in range(2)]
    population = Population(networks[0], options, CPU, "float64")
    apart = [Student(network, options, CPU, "float64") for network in networks[1]]
    pixels = torch.from_numpy(digits_data.task.train.inputs).double()
    labels = torch.from_numpy(digits_data.task.train.labels)
    for update in range(30):
        rows = np.random.default_rng(update).integers(len(labels), size=(2, 8))
        output = population.forward({"pixel_values": pixels[rows.ravel()]})
        population.step(2 * torch.nn.functional.cross_entropy(output.logits, labels[rows.ravel()]), [0.0, 0.0])
        for student, of_student in zip(apart, rows, strict=True):
            logits = student.forward({"pixel_values": pixels[of_student]}).logits
            student.step(torch.nn.functional.cross_entropy(logits, labels[of_student]), 0.0)
    inputs = {"pixel_values": pixels[:100]}
    expected = torch.cat([student.predict(inputs) for student in apart])
    torch.testing.assert_close(population.predict(inputs, shared=True), expected, rtol=1e-7, atol=1e-8)


def test_inputs_with_other_signs_are_not_stacked(digits_data):
    networks = [build(MLP_, digits_data.task, seed) for seed in (0, 1)]
    networks[1].body[2].input_quantizer.lowest.fill_(-8.0)
    with pytest.raises(InputError, match=r"buffer body.2.input_quantizer.lowest of a MLP differs between students"):
        Population(networks, OptimizerOptions(), CPU)


def test_first_order_credit_is_the_product_of_gradients(digits_data):
    """Forward mode through the rounding gives, for each teacher, the inner product of its gradient and the held-out gradient."""
    run = start(digits_data, optimizer="sgd(lr=0.1)", precision="float64")
    teach(run, 2)
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), 40, measure="loss")
    meter.start(run.student, np.array([True]))
    measured = credit.CREDITS["first_order"](run, meter, ["response"])["response"]
    held_out = meter.held_out_gradient(run.student, run.update, credit.GradientOptions())
    losses = run.per_teacher_loss("response", run.settings.temperature) / run.settings.batch_size
    for row, teacher in ((0, 0), (3, 1), (7, 2)):
        gradient = torch.autograd.grad(losses[row, teacher], run.student.parameters, retain_graph=True, materialize_grads=True)
        expected = 0.1 * sum((own * other).sum() for own, other in zip(gradient, held_out, strict=True))
        torch.testing.assert_close(measured[row, teacher], expected.detach(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("head", "the student's classifier has 4 bits, so its logits are not linear in its parameters"),
        ("difference", "credit=difference moves the parameters of the student by less than a step of its quantised layers"),
    ],
)
def test_credit_that_rounding_spoils_is_refused(name, message):
    env = gym.make("kd_env/TeacherSelection-v0", task="digits", updates=4, student=MLP_, credit=name)
    env.reset(seed=0)
    with pytest.raises(InputError, match=message):
        env.step(env.action_space.sample())


def test_counterfactual_credit_and_populations_run_in_the_environment():
    env = gym.make("kd_env/TeacherSelection-v0", task="digits", updates=2, batch_size=4, student=MLP_, credit="counterfactual")
    env.reset(seed=0)
    _, reward, *_, info = env.step(env.action_space.sample())
    assert np.isfinite(reward)
    assert np.abs(info["credit"]).max() > 0
