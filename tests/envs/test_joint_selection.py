"""Joint selection: abstaining, costs, kd_weight and temperature of each instance, and credit for what was decided."""

import dataclasses
import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from pairwise import chosen
from playing import JOINT, along_the_held_out_gradient, batch, slots, weights_of
from test_credit_rewards import random_actions
from torch.nn.functional import cross_entropy, log_softmax, softmax

from kd_env.envs import credit, decisions

TYPES = ("response", "layer", "relation", "label")
OPTIONS = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "kd_weight": 0.3, "precision": "float64", "temperature": 3.0}


@pytest.fixture
def make(untrained):
    teachers = untrained("image", 3)

    def environment(**keywords):
        return batch(JOINT, **{**OPTIONS, **teachers, **keywords})

    return environment


def decision_of(env, rows):
    """What four rows of an action mean for the loss of the mini-batch that comes next."""
    selection = env.unwrapped.selection
    return decisions.of_action(selection.distillation, selection.action_kind, selection.action_kind.decode(rows, 4))


def test_abstaining_gives_no_loss_from_teachers(make):
    """The label's loss stays; without it nothing is learned from the instance."""
    for kd_weight, expected in ((0.3, 0.7), (1.0, 0.0)):
        env = make(factors="abstain", kd_weight=kd_weight, optimizer="sgd(lr=0.5)")
        env.reset(seed=0)
        run = env.unwrapped.distillation
        decision = decision_of(env, np.ones((4, 1)))
        label = cross_entropy(run.observe().student.logits, run.observe().labels, reduction="none")
        torch.testing.assert_close(run.per_example_loss(decision).detach(), expected * label, rtol=1e-12, atol=0)
        before = weights_of(env)
        env.step(np.ones(4, dtype=np.float32))
        assert torch.equal(weights_of(env), before) == (kd_weight == 1.0)


@pytest.mark.parametrize(
    ("kind", "normalize"),
    chosen(itertools.product(credit.CREDITS, [False, True]), [("head", True), ("first_order", False), ("counterfactual", True)]),
)
def test_abstaining_is_paid_nothing(make, kind, normalize):
    env = make(kd_weight=1.0, credit=kind, normalize_credit=normalize, factors="teachers,abstain", teacher_cost=0.01)
    many = slots(4, JOINT, **env.spec.kwargs | {"autoreset_mode": "disabled"})
    env.reset(seed=0)
    many.reset(seed=0)
    rows = np.float32([[0.1, 0, 0, 1], [0.1, 0, 0, -1], [0.5, 0.2, 0, 0.3], [-1, 1, 0, -0.3]])
    *_, reward, _, _, info = env.step(rows.ravel())
    _, rewards, _, _, info_of_slots = many.step(rows)
    assert rewards[0] == rewards[2] == 0.0
    assert rewards[1] != 0.0 != rewards[3]
    assert reward == pytest.approx(rewards.mean())
    assert info["reward_terms"]["teacher_calls"].tolist() == info_of_slots["reward_terms"]["teacher_calls"].tolist() == [0, 3, 0, 1]
    assert (info["credit"][0] != 0).all(), "the credit of each teacher is shown all the same"


def test_the_cost_of_teachers_is_subtracted(make):
    free, costly = (make(factors="teachers,abstain", teacher_cost=cost, optimizer="adam(lr=0.01)") for cost in (0.0, 0.25))
    rows = np.float32([[0, 0, 0, 1], [0, 0, 0, -1], [1, -1, -1, -1], [0.5, 0.5, -1, -1]])
    rewards = []
    for env in (free, costly):
        env.reset(seed=0)
        *_, reward, _, _, info = env.step(rows.ravel())
        rewards.append(reward)
        assert info["reward_terms"]["teacher_calls"].tolist() == [0, 3, 1, 2]
        assert info["reward_terms"]["improvement"] != 0.0
    assert rewards[0] == pytest.approx(info["reward_terms"]["improvement"], rel=1e-6)
    assert rewards[1] == pytest.approx(rewards[0] - 0.25 * (0 + 3 + 1 + 2) / 4)


def test_at_full_kd_weight_no_labels_are_read_whatever_the_action_says(make, untrained):
    task = untrained("image", 3)["task"]
    other = dataclasses.replace(task, train=dataclasses.replace(task.train, labels=np.roll(task.train.labels, 7)))
    weights = []
    for each in (task, other):
        env = make(task=each, kd_weight=1.0, updates=3)
        assert env.unwrapped.selection.layout.knowledge == TYPES[:3]
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(3):
            env.step(env.action_space.sample())
        weights.append(weights_of(env))
    assert torch.equal(*weights)
    env = make(kd_weight=1.0, factors="kd_weight", optimizer="sgd(lr=0.5)")
    env.reset(seed=0)
    before = weights_of(env)
    env.step(-np.ones(4, dtype=np.float32))
    assert torch.equal(weights_of(env), before), "the rest of the weight goes to no label"


def test_kd_weight_divides_between_teachers_and_label_for_each_instance(make):
    env = make(factors="kd_weight", optimizer="sgd(lr=0.5)", knowledge="response(strength=2)")
    env.reset(seed=0)
    run = env.unwrapped.distillation
    kd_weight = torch.tensor([0.0, 0.5, 0.75, 1.0], dtype=torch.float64)
    response = run.per_teacher_loss("response", 3.0).mean(1)
    label = run.per_teacher_loss("label", 3.0)[:, 0]
    losses = run.per_example_loss(decision_of(env, np.float32([-1.0, 0.0, 0.5, 1.0])))
    torch.testing.assert_close(losses, 2 * kd_weight * response + (1 - kd_weight) * label, rtol=1e-6, atol=0)


def test_temperature_is_decided_for_each_instance(make):
    """tau^2 KL by hand at 3/4, 3, 6 and 12, and the student that one step of SGD on its mean gives."""
    env = make(factors="temperature", optimizer="sgd(lr=0.5)", knowledge="response", kd_weight=1.0)
    env.reset(seed=0)
    run = env.unwrapped.distillation
    before_update, output = run.observe(), run.student_output()
    tau = torch.tensor([0.75, 3.0, 6.0, 12.0], dtype=torch.float64)
    p = softmax(before_update.teacher_logits / tau[:, None, None], 2)
    log_q = log_softmax(output.logits / tau[:, None], 1)[:, None]
    loss = (tau**2)[:, None] * (p * (p.log() - log_q)).sum(2)  # [4, 3]
    decision = decision_of(env, np.float32([-1, 0, 0.5, 1]))
    torch.testing.assert_close(run.per_example_loss(decision), loss.mean(1), rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(loss.mean(), run.student.parameters, retain_graph=True, materialize_grads=True)
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    env.step(np.float32([-1, 0, 0.5, 1]))
    for parameter, previous, slope in zip(run.student.parameters, before, gradient, strict=True):
        torch.testing.assert_close(parameter.detach(), previous - 0.5 * slope, rtol=1e-6, atol=1e-9)


# Credit


@pytest.mark.parametrize(
    ("kind", "normalize"),
    chosen(itertools.product(["first_order", "head"], [False, True]), [("first_order", False), ("first_order", True), ("head", False)]),
)
def test_credit_is_the_derivative_of_the_loss_along_the_held_out_gradient(make, kind, normalize):
    """By finite differences, for each instance; normalised, in units of the spread over teachers and types."""
    env = make(
        credit=kind,
        normalize_credit=normalize,
        factors="teachers,knowledge,kd_weight,abstain",
        reward_labels=30,
        reward_examples=30,
        optimizer="sgd(lr=0.5)",
        knowledge="response,layer(strength=5),relation",
    )
    many = slots(4, JOINT, **env.spec.kwargs)
    many.reset(seed=0)
    selection = many.unwrapped.selection
    env.reset(seed=0)
    action = random_actions(env, 4)
    expected = along_the_held_out_gradient(selection.distillation, decision_of(many, action), only_head=kind == "head").numpy()
    twin = selection.fork()
    raw = credit.CREDITS[kind](twin.distillation, twin.meter, TYPES)
    rewards = many.step(action)[1]
    if normalize:
        candidates = torch.cat([5.0 * raw[name] if name == "layer" else raw[name] for name in TYPES], 1)  # [4, 3 * 3 + 1]
        expected = expected / candidates.square().mean(1).sqrt().numpy()
    np.testing.assert_allclose(rewards, expected, rtol=1e-4, atol=1e-9)
    assert (np.abs(rewards) > 1e-6).all()


@pytest.mark.parametrize("temperature_scale", [-1.0, 1.0])
def test_credit_is_taken_at_the_temperature_that_was_decided(temperature_scale):
    keywords = {"factors": "temperature", "knowledge": "response", "credit": "first_order", "normalize_credit": False}
    env = gym.make(JOINT, task="digits", batch_size=4, updates=3, precision="float64", **keywords).unwrapped
    env.reset(seed=0)
    run, meter = env.distillation, env.selection.meter
    decided, setting = (
        credit.first_order(run, meter, ("response",), temperature)["response"]
        for temperature in (2.0 * 4.0**temperature_scale, run.settings.temperature)
    )
    assert run.settings.temperature == 2.0
    _, reward, _, _, info = env.step(np.full(4, temperature_scale, dtype=np.float32))
    np.testing.assert_allclose(info["credit"], decided, rtol=1e-9)
    assert not np.allclose(info["credit"], setting, rtol=0.1)
    assert reward == pytest.approx(float(decided.mean()), rel=1e-6), "all four teachers have equal weight"
