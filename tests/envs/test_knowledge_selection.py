"""Knowledge selection: what an action means for the loss, phases, and credit of types."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from playing import KNOWLEDGE, along_the_held_out_gradient, batch, recorded_steps, same, slots, weights_of
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax, softmax

from kd_env.envs import decisions
from kd_env.errors import InputError

TYPES = ("response", "layer", "relation", "label")
OPTIONS = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "kd_weight": 0.3, "precision": "float64", "temperature": 3.0}


@pytest.fixture
def make(untrained):
    teachers = untrained("image", 2)  # two teachers of two layers each, which have relations between them

    def environment(**keywords):
        return batch(KNOWLEDGE, **{**OPTIONS, **teachers, **keywords})

    return environment


def decision_of(env, action):
    """What an action means for the loss of the mini-batch that comes next."""
    selection = env.unwrapped.selection
    return decisions.of_action(selection.distillation, selection.action_kind, selection.action_kind.decode(np.array(action), 1))


def losses_by_hand(run):
    """Mean loss over the batch of each type at strength 1, all teachers with equal weight, in plain operations."""
    output, batch, tau = run.student_output(), run.observe(), run.settings.temperature
    losses = dict.fromkeys(TYPES, 0.0)
    losses["label"] = cross_entropy(output.logits, batch.labels)
    (projections,) = output.projections.values()
    for k in range(2):
        p, log_q = softmax(batch.teacher_logits[:, k] / tau, 1), log_softmax(output.logits / tau, 1)
        losses["response"] += 0.5 * tau**2 * (p * (p.log() - log_q)).sum(1).mean()
        teacher_layers = batch.teacher_layers[k]  # [B, 2, D_k]
        losses["layer"] += 0.5 * (projections[k] - teacher_layers).square().mean()
        cosine, expected = (cosine_similarity(layers[:, 0], layers[:, 1]) for layers in (output.layers, teacher_layers))
        losses["relation"] += 0.5 * 2 * (cosine - expected).square().mean() / 4  # two of the four entries of a Gram matrix
    return losses


def test_types_are_those_of_the_setting_in_order_then_the_label(make):
    assert make().unwrapped.selection.layout.knowledge == TYPES
    env = make(knowledge="relation,response(strength=2)")
    assert env.unwrapped.selection.layout.knowledge == ("relation", "response", "label")
    assert env.action_space.shape == (3,)


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_at_full_kd_weight_there_is_no_gate_for_labels_and_none_are_read(make, action, untrained):
    env = make(action=action, kd_weight=1.0)
    assert env.unwrapped.selection.layout.knowledge == TYPES[:3]
    assert env.action_space.shape == (3,)
    task = untrained("image", 2)["task"]
    other = dataclasses.replace(task, train=dataclasses.replace(task.train, labels=np.roll(task.train.labels, 7)))
    blind = make(action=action, kd_weight=1.0, task=other)
    gates = np.ones(3, dtype=env.action_space.dtype)
    for each in (env, blind):
        each.reset(seed=0)
        each.step(gates)
    assert torch.equal(weights_of(env), weights_of(blind))
    labelled, relabelled = make(action=action), make(action=action, task=other)
    for each in (labelled, relabelled):
        each.reset(seed=0)
        each.step(np.ones(4, dtype=env.action_space.dtype))
    assert not torch.equal(weights_of(labelled), weights_of(relabelled)), "below a kd_weight of 1 they count"


@pytest.mark.parametrize(
    ("action", "numbers", "gates"),
    [
        ("soft", [-0.5, 1.0, 0.2, -1.0], [0.25, 1.0, 0.6, 0.0]),
        ("soft", [0.0, -1, -1, 1], [0.5, 0, 0, 1]),
        ("hard", [1, 0, 1, 1], [1, 0, 1, 1]),
    ],
)
def test_gates_are_the_strengths_of_the_loss(make, action, numbers, gates):
    """The setting's kd_weight .3 plays no part; strengths in ``knowledge`` do."""
    env = make(action=action, knowledge="response,layer(strength=50),relation", optimizer="sgd(lr=0.1)")
    env.reset(seed=0)
    run = env.unwrapped.distillation
    losses, strengths = losses_by_hand(run), {"layer": 50.0}
    expected = sum(gate * strengths.get(name, 1.0) * losses[name] for name, gate in zip(TYPES, gates, strict=True))
    assert all(float(loss.detach()) > 1e-4 for loss in losses.values())
    torch.testing.assert_close(run.per_example_loss(decision_of(env, numbers)).mean(), expected, rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(expected, run.student.parameters, retain_graph=True, materialize_grads=True)
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    env.step(np.array(numbers, dtype=env.action_space.dtype))
    for parameter, previous, slope in zip(run.student.parameters, before, gradient, strict=True):
        torch.testing.assert_close(parameter.detach(), previous - 0.1 * slope, rtol=1e-6, atol=1e-9)


def test_no_type_teaches_nothing(make):
    env = make(action="hard")
    env.reset(seed=0)
    before = weights_of(env)
    *_, reward, _, _, info = env.step(np.zeros(4, dtype=np.int8))
    assert torch.equal(weights_of(env), before)
    assert reward == info["reward_terms"]["improvement"] == 0.0


# Phases


def held_out_loss(run):
    (rows,) = run.reward_split.positions
    inputs, labels = run.reward_split.at(rows, run.student.device)
    return float(cross_entropy(run.student.predict(inputs), labels))


def test_a_phase_is_its_mini_batches_one_by_one(make):
    """Seven updates in phases of three: two whole ones and one of one; the reward is the decrease over the phase."""
    options = {"updates": 7, "reward_labels": 30, "reward_examples": 30, "optimizer": "adam(lr=0.02)"}
    phased, single = make(updates_per_phase=3, **options), make(**options)
    for env in (phased, single):
        env.reset(seed=1)
    rng, steps, taught = np.random.default_rng(0), recorded_steps(phased), 0
    losses = [held_out_loss(phased.unwrapped.distillation)]
    for length in (3, 3, 1):
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        expected = [single.step(action) for _ in range(length)]
        observation, reward, terminated, truncated, info = phased.step(action)
        taught += length
        losses.append(held_out_loss(phased.unwrapped.distillation))
        assert len(steps) == taught
        assert same(observation, expected[-1][0])
        assert torch.equal(weights_of(phased), weights_of(single))
        assert reward == pytest.approx(losses[-2] - losses[-1], abs=1e-6)
        assert reward == pytest.approx(sum(step[1] for step in expected), abs=1e-6)
        assert info["reward_terms"]["improvement"] == pytest.approx(reward)
        assert np.array_equal(info["example_ids"], expected[-1][4]["example_ids"]), "of the phase's last mini-batch"
        assert (terminated, truncated) == (taught == 7, False)
    assert abs(losses[0] - losses[-1]) > 0.001
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        phased.step(action)


def test_costs_and_credit_of_a_phase(make):
    """Rewards and calls are sums over its mini-batches, credit is the last one's."""
    options = {"updates": 6, "credit": "first_order", "normalize_credit": False, "teacher_cost": 0.25}
    phased, single = make(updates_per_phase=3, **options), make(**options)
    for env in (phased, single):
        env.reset(seed=1)
    for _ in range(2):
        action = phased.action_space.sample()
        expected = [single.step(action) for _ in range(3)]
        *_, reward, _, _, info = phased.step(action)
        assert reward == pytest.approx(sum(step[1] for step in expected))
        assert info["reward_terms"] == {"teacher_calls": 6.0}
        assert same(info["credit"], expected[-1][4]["credit"])


def test_time_limits_count_phases():
    env = slots(1, KNOWLEDGE, updates=10, updates_per_phase=3, max_episode_steps=2, batch_size=3)
    env.reset(seed=0)
    assert [bool(env.step(env.action_space.sample())[3][0]) for _ in range(2)] == [False, True]
    assert env.unwrapped.finished.update.tolist() == [6]


# Credit


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_credit_pays_the_decrease_to_be_expected(make, action):
    env = make(
        action=action,
        credit="first_order",
        normalize_credit=False,
        reward_labels=30,
        reward_examples=30,
        optimizer="sgd(lr=0.5)",
        knowledge="response,layer(strength=5),relation",
    )
    env.reset(seed=0)
    numbers = np.array([0.25, -0.5, 0.75, 0.0], dtype=np.float32) if action == "soft" else np.array([1, 1, 0, 1], dtype=np.int8)
    gates = env.unwrapped.selection.action_kind.decode(numbers, 1).gates
    expected = along_the_held_out_gradient(env.unwrapped.distillation, decision_of(env, numbers)).mean()
    *_, reward, _, _, info = env.step(numbers)
    assert reward == pytest.approx(float(expected), rel=1e-5)
    assert reward == pytest.approx(float((gates * info["credit"]).sum()), rel=1e-6)
    assert (info["credit"] != 0).all()


def test_credit_of_a_type_does_not_depend_on_the_gates_and_is_scaled(make):
    credits = []
    for gates in ([1, 1, 1, 1], [0, 0, 1, 0]):
        env = make(action="hard", credit="first_order")
        env.reset(seed=0)
        *_, reward, _, _, info = env.step(np.array(gates))
        assert reward == pytest.approx(float(info["credit"][0] @ gates))
        credits.append(info["credit"])
    np.testing.assert_allclose(*credits)
    assert 0.1 < np.abs(credits[0]).max() < 10.0, "in units of the spread over teachers and types"


def test_a_budget_that_ends_within_a_phase_leaves_the_info_of_its_last_mini_batch():
    """The other student, which began later, is taught the rest of the phase."""
    options = {"task": "digits", "batch_size": 8, "updates": 5, "updates_per_phase": 3, "credit": "first_order", "kd_weight": 0.5}
    both, alone = (
        gym.make_vec(KNOWLEDGE, num_envs=slots, num_students=slots, vectorization_mode="vector_entry_point", observe_labels=True, **options)
        for slots in (2, 1)
    )
    both.reset(seed=[0, 1])
    alone.reset(seed=0)
    for phase in range(2):
        if phase == 1:
            both.reset(seed=[5, 7], options={"reset_mask": np.array([False, True])})
        actions = np.array([[0.3, 0.6, 0.1, 0.0], [0.5, 0.1, 0.2, 0.9]], dtype=np.float32)
        info, expected = both.step(actions)[4], alone.step(actions[:1])[4]
    assert both.unwrapped.distillation.update.tolist() == [5, 3]
    np.testing.assert_array_equal(info["example_ids"][0], expected["example_ids"][0])
    np.testing.assert_allclose(info["credit"][0], expected["credit"][0], atol=1e-4)
    np.testing.assert_allclose(info["reward_terms"]["student_ce"][0], expected["reward_terms"]["student_ce"][0], atol=1e-4)
