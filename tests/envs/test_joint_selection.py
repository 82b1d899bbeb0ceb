"""Joint selection: each factor of the action by hand, alone and with the others, and credit for what was decided."""

import dataclasses
import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from playing import JOINT, along_the_held_out_gradient, batch, slots, weights_of
from torch.nn.functional import cross_entropy, log_softmax, softmax

from kd_env.envs import actions, credit
from kd_env.envs.actions import FACTORS, MAX_TEMPERATURE_SCALE, MIN_TEACHER_WEIGHT, ActionLayout

TYPES = ("response", "layer", "relation", "label")
OPTIONS = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "kd_weight": 0.3, "precision": "float64", "temperature": 3.0}
COMBINATIONS = [named for size in range(1, 6) for named in itertools.combinations(FACTORS, size)]
ROW = {"teachers": [0.1, 0.0, -0.05], "knowledge": [0.3, -0.2, 0.0, 1.0], "kd_weight": [-0.5], "temperature": [0.5], "abstain": [-0.1]}
"""One decision over three teachers and four types."""


@pytest.fixture
def make(of_kind):
    given = of_kind("image", 3)

    def environment(**keywords):
        return batch(JOINT, **{**OPTIONS, **given, **keywords})

    return environment


def action_of(factors, *rows):
    return np.array([[number for name in factors for number in {**ROW, **row}[name]] for row in rows], dtype=np.float32)


def test_the_numbers_by_hand():
    assert (MIN_TEACHER_WEIGHT, MAX_TEMPERATURE_SCALE) == (0.01, 4.0)
    choice = actions.decode("joint", action_of(FACTORS, {}, {"abstain": [0.01]}), ActionLayout(3, TYPES), 2)
    shares = np.exp([1.0, 0.0, -0.5]) / np.exp([1.0, 0.0, -0.5]).sum()
    np.testing.assert_allclose(choice.weights, [shares, [0, 0, 0]], rtol=1e-6)
    assert choice.gates.tolist() == [[1, 0, 0, 1]] * 2, "on above 0"
    assert choice.kd_weight.tolist() == [0.25] * 2
    np.testing.assert_allclose(choice.temperature_scale, [2.0] * 2)


@pytest.mark.parametrize("factors", COMBINATIONS, ids="+".join)
def test_every_combination_of_factors(factors, make):
    """31 of them: the size of the space, what is decided, and that all else is as the setting has it."""
    env = make(factors=",".join(reversed(factors)))
    sizes = {"teachers": 3, "knowledge": 4, "kd_weight": 1, "temperature": 1, "abstain": 1}
    size = sum(sizes[name] for name in factors)
    assert env.action_space.shape == (4 * size,)
    assert env.unwrapped.selection.layout.size("joint") == size
    layout = env.unwrapped.selection.layout
    choice = actions.decode("joint", action_of(factors, {}, {"abstain": [1.0]}).ravel(), layout, 2)
    shares = np.exp([1.0, 0.0, -0.5]) / np.exp([1.0, 0.0, -0.5]).sum() if "teachers" in factors else np.full(3, 1 / 3)
    np.testing.assert_allclose(choice.weights, [shares, shares * ("abstain" not in factors)], rtol=1e-6)
    assert (choice.gates is None) == ("knowledge" not in factors)
    assert (choice.kd_weight is None) == ("kd_weight" not in factors)
    assert (choice.temperature_scale is None) == ("temperature" not in factors)
    env.reset(seed=0)
    selection, run = env.unwrapped.selection, env.unwrapped.distillation
    decision = selection.decision(actions.decode("joint", action_of(factors, {}, {}, {"abstain": [1.0]}, {}), layout, 4))
    kd_weight = 0.25 if "kd_weight" in factors else 0.3
    on = [1.0, 0.0, 0.0, 1.0] if "knowledge" in factors else [1.0] * 4
    for name, gate in zip(TYPES, on, strict=True):
        expected = torch.full((4,), gate * (1 - kd_weight if name == "label" else kd_weight), dtype=torch.float64)
        found = torch.as_tensor(decision.strengths[name], dtype=torch.float64).expand(4)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    temperature_scale = 2.0 if "temperature" in factors else 1.0
    temperature = torch.as_tensor(decision.temperature, dtype=torch.float64).expand(4)
    torch.testing.assert_close(temperature, torch.full((4,), 3.0 * temperature_scale, dtype=torch.float64))
    assert (decision.weights["layer"][2] == 0).all() == ("abstain" in factors)
    assert set(decision.weights) == set(run.terms)
    *_, info = env.step(action_of(factors, {}, {}, {"abstain": [1.0]}, {}).ravel())
    assert info["reward_terms"]["teacher_calls"].tolist() == [3, 3, 0 if "abstain" in factors else 3, 3]


def test_a_teacher_with_little_weight_is_not_asked():
    """Below one in a hundred; the others share its weight."""
    layout = ActionLayout(3, TYPES, ("teachers",))
    just, barely = (math.log(share / (1 - share) * 2) / 10 for share in (0.0101, 0.0099))
    rows = np.float32([[just, 0, 0], [barely, 0, 0], [1.0, -1.0, -1.0]])
    weights = actions.decode("joint", rows, layout, 3).weights
    np.testing.assert_allclose(weights[0], [0.0101, 0.49495, 0.49495], rtol=1e-4)
    np.testing.assert_allclose(weights[1], [0, 0.5, 0.5])
    np.testing.assert_allclose(weights[2], [1, 0, 0])
    assert np.count_nonzero(weights, axis=1).tolist() == [3, 2, 1]


def test_many_teachers_alike_are_all_asked():
    weights = actions.decode("joint", np.zeros((1, 200)), ActionLayout(200, TYPES, ("teachers",)), 1).weights
    np.testing.assert_allclose(weights, 1 / 200, rtol=1e-5)


def test_abstaining_gives_no_loss_from_teachers(make):
    """The label's loss stays; without it nothing is learned from the instance."""
    for kd_weight, expected in ((0.3, 0.7), (1.0, 0.0)):
        env = make(factors="abstain", kd_weight=kd_weight, optimizer="sgd(lr=0.5)")
        env.reset(seed=0)
        run, selection = env.unwrapped.distillation, env.unwrapped.selection
        decision = selection.decision(actions.decode("joint", np.ones((4, 1)), selection.layout, 4))
        label = cross_entropy(run.observe().student.logits, run.observe().labels, reduction="none")
        torch.testing.assert_close(run.per_example_loss(decision).detach(), expected * label, rtol=1e-12, atol=0)
        before = weights_of(env)
        env.step(np.ones(4, dtype=np.float32))
        assert torch.equal(weights_of(env), before) == (kd_weight == 1.0)


@pytest.mark.parametrize("given", ["head", "first_order", "counterfactual"])
@pytest.mark.parametrize("normalize", [False, True])
def test_abstaining_is_worth_nothing(make, given, normalize):
    env = make(kd_weight=1.0, credit=given, normalize_credit=normalize, factors="teachers,abstain", teacher_cost=0.01)
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
    assert (info["credit"][0] != 0).all(), "what each would have been worth is told all the same"


def test_what_teachers_cost_is_taken_off(make):
    free, dear = (make(factors="teachers,abstain", teacher_cost=cost, optimizer="adam(lr=0.01)") for cost in (0.0, 0.25))
    rows = np.float32([[0, 0, 0, 1], [0, 0, 0, -1], [1, -1, -1, -1], [0.5, 0.5, -1, -1]])
    paid = []
    for env in (free, dear):
        env.reset(seed=0)
        *_, reward, _, _, info = env.step(rows.ravel())
        paid.append(reward)
        assert info["reward_terms"]["teacher_calls"].tolist() == [0, 3, 1, 2]
        assert info["reward_terms"]["improvement"] != 0.0
    assert paid[0] == pytest.approx(info["reward_terms"]["improvement"], rel=1e-6)
    assert paid[1] == pytest.approx(paid[0] - 0.25 * (0 + 3 + 1 + 2) / 4)


def test_at_strength_one_no_labels_are_read_whatever_the_strength_factor(make, of_kind):
    task = of_kind("image", 3)["task"]
    other = dataclasses.replace(task, train=dataclasses.replace(task.train, labels=np.roll(task.train.labels, 7)))
    taught = []
    for one in (task, other):
        env = make(task=one, kd_weight=1.0, updates=3)
        assert env.unwrapped.selection.layout.knowledge == TYPES[:3]
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(3):
            env.step(env.action_space.sample())
        taught.append(weights_of(env))
    assert torch.equal(*taught)
    env = make(kd_weight=1.0, factors="kd_weight", optimizer="sgd(lr=0.5)")
    env.reset(seed=0)
    before = weights_of(env)
    env.step(-np.ones(4, dtype=np.float32))
    assert torch.equal(weights_of(env), before), "the rest of the strength is nobody's"


def test_the_strength_factor_divides_between_teachers_and_label_for_each_instance(make):
    env = make(factors="kd_weight", optimizer="sgd(lr=0.5)", knowledge="response(strength=2)")
    env.reset(seed=0)
    run, selection = env.unwrapped.distillation, env.unwrapped.selection
    rows = np.float32([-1.0, 0.0, 0.5, 1.0])
    lam = torch.tensor([0.0, 0.5, 0.75, 1.0], dtype=torch.float64)
    response = run.per_teacher_loss("response", 3.0).mean(1)
    label = run.per_teacher_loss("label", 3.0)[:, 0]
    found = run.per_example_loss(selection.decision(actions.decode("joint", rows, selection.layout, 4)))
    torch.testing.assert_close(found, 2 * lam * response + (1 - lam) * label, rtol=1e-6, atol=0)


def test_the_temperature_factor_is_one_for_each_instance(make):
    """tau^2 KL by hand at 3/4, 3, 6 and 12, and the student that one step of SGD on its mean gives."""
    env = make(factors="temperature", optimizer="sgd(lr=0.5)", knowledge="response", kd_weight=1.0)
    env.reset(seed=0)
    run = env.unwrapped.distillation
    features, said = run.observe(), run.student_output()
    tau = torch.tensor([0.75, 3.0, 6.0, 12.0], dtype=torch.float64)
    p = softmax(features.teacher_logits / tau[:, None, None], 2)
    log_q = log_softmax(said.logits / tau[:, None], 1)[:, None]
    loss = (tau**2)[:, None] * (p * (p.log() - log_q)).sum(2)  # [4, 3]
    decision = env.unwrapped.selection.decision(actions.decode("joint", np.float32([-1, 0, 0.5, 1]), env.unwrapped.selection.layout, 4))
    torch.testing.assert_close(run.per_example_loss(decision), loss.mean(1), rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(loss.mean(), run.student.parameters, retain_graph=True, materialize_grads=True)
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    env.step(np.float32([-1, 0, 0.5, 1]))
    for parameter, was, slope in zip(run.student.parameters, before, gradient, strict=True):
        torch.testing.assert_close(parameter.detach(), was - 0.5 * slope, rtol=1e-6, atol=1e-9)


# Credit


def random_actions(env, rows):
    """The first and the last type are on, and the second of the instances abstains; what else is decided is random."""
    env.action_space.seed(0)
    table = env.action_space.sample().reshape(rows, -1)
    last = 3 + len(env.unwrapped.selection.layout.knowledge) - 1
    table[:, [3, last]], table[:, -1] = 0.5, [-0.5, 0.5, -0.5, -0.5][:rows]
    return table


@pytest.mark.parametrize("kd_weight", [0.3, 1.0])
@pytest.mark.parametrize("granularity", ["instance", "batch"])
@pytest.mark.parametrize("given", ["head", "first_order", "counterfactual"])
def test_raw_credit_is_paid_as_it_was_decided(make, given, kd_weight, granularity):
    """The sum over types and teachers of strength times gate times weight times credit, each at strength 1."""
    factors = "teachers,knowledge,kd_weight,abstain"
    options = {"kd_weight": kd_weight, "granularity": granularity, "knowledge": "response,layer(strength=5)"}
    env = make(credit=given, normalize_credit=False, factors=factors, **options)
    env.reset(seed=0)
    selection, run = env.unwrapped.selection, env.unwrapped.distillation
    raw = credit.CREDITS[given](run.fork(), selection.layout.knowledge)
    rows = 4 if granularity == "instance" else 1
    chosen = random_actions(env, rows).ravel()
    choice = actions.decode("joint", chosen, selection.layout, rows)
    *_, reward, _, _, info = env.step(chosen)
    expected = np.zeros(4)
    by_type = np.zeros((4, len(selection.layout.knowledge)))
    by_teacher = np.zeros((4, 3))
    for b, (m, name) in itertools.product(range(4), enumerate(selection.layout.knowledge)):
        row = b if granularity == "instance" else 0
        gate, lam, factor = choice.gates[row, m], choice.kd_weight[row], {"layer": 5.0}.get(name, 1.0)
        if name == "label":
            by_type[b, m] = raw["label"][b, 0]
            expected[b] += (1 - lam) * gate * by_type[b, m]
            continue
        for k in range(3):
            worth = factor * float(raw[name][b, k])
            by_type[b, m] += choice.weights[row, k] * worth
            by_teacher[b, k] += gate * worth
        expected[b] += lam * gate * by_type[b, m]
    for shown, table in (("knowledge_credit", by_type), ("credit", by_teacher)):
        np.testing.assert_allclose(info[shown], table.reshape(rows, -1, table.shape[1]).mean(1), rtol=1e-5, atol=1e-12)
    assert reward == pytest.approx(expected.mean(), rel=1e-5)
    assert reward != 0.0


@pytest.mark.parametrize("given", ["first_order", "head"])
@pytest.mark.parametrize("normalize", [False, True])
def test_credit_is_the_derivative_of_the_loss_along_the_held_out_gradient(make, given, normalize):
    """By finite differences, for each instance; normalised, in units of the spread over teachers and types."""
    env = make(
        credit=given,
        normalize_credit=normalize,
        factors="teachers,knowledge,kd_weight,abstain",
        reward_labels=30,
        reward_examples=30,
        optimizer="sgd(lr=0.5)",
        knowledge="response,layer(strength=5),relation",
    )
    many = slots(4, JOINT, **env.spec.kwargs)
    many.reset(seed=0)
    selection, run = many.unwrapped.selection, many.unwrapped.distillation
    env.reset(seed=0)
    chosen = random_actions(env, 4)
    choice = actions.decode("joint", chosen, selection.layout, 4)
    expected = along_the_held_out_gradient(run, selection.decision(choice), only_head=given == "head").numpy()
    raw = credit.CREDITS[given](run.fork(), TYPES)
    rewards = many.step(chosen)[1]
    if normalize:
        every = torch.cat([5.0 * raw[name] if name == "layer" else raw[name] for name in TYPES], 1)  # [4, 3 * 3 + 1]
        expected = expected / every.square().mean(1).sqrt().numpy()
    np.testing.assert_allclose(rewards, expected, rtol=1e-4, atol=1e-9)
    assert (np.abs(rewards) > 1e-6).all()


@pytest.mark.parametrize("temperature_scale", [-1.0, 1.0])
def test_credit_is_taken_at_the_temperature_that_was_chosen(temperature_scale):
    keywords = {"factors": "temperature", "knowledge": "response", "credit": "first_order", "normalize_credit": False}
    env = gym.make("kd_env/JointSelection-v0", task="digits", batch_size=4, updates=3, precision="float64", **keywords).unwrapped
    env.reset(seed=0)
    run = env.distillation
    chosen, setting = (
        credit.first_order(run, ("response",), temperature)["response"]
        for temperature in (2.0 * 4.0**temperature_scale, run.settings.temperature)
    )
    assert run.settings.temperature == 2.0
    _, reward, _, _, info = env.step(np.full(4, temperature_scale, dtype=np.float32))
    np.testing.assert_allclose(info["credit"], chosen, rtol=1e-9)
    assert not np.allclose(info["credit"], setting, rtol=0.1)
    assert reward == pytest.approx(float(chosen.mean()), rel=1e-6), "all four teachers alike"
