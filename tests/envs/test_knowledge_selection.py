"""Knowledge selection: what an action means for the loss, phases, the exploration bonus, and credit of types."""

import dataclasses

import numpy as np
import pytest
import torch
from playing import KNOWLEDGE, along_the_held_out_gradient, batch, heard, same, slots, weights_of
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax, softmax

from kd_env.envs import actions
from kd_env.envs.actions import ActionLayout
from kd_env.envs.rewards import hard_exploration, soft_exploration
from kd_env.errors import InputError
from kd_env.types import Decision

TYPES = ("response", "layer", "relation", "label")
OPTIONS = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "kd_weight": 0.3, "precision": "float64", "temperature": 3.0}


@pytest.fixture
def make(of_kind):
    given = of_kind("image", 2)  # two teachers of two layers each: a relation between them is there

    def environment(**keywords):
        return batch(KNOWLEDGE, **{**OPTIONS, **given, **keywords})

    return environment


def by_hand(run):
    """Mean loss over the batch of each type at strength 1, all teachers alike, in plain operations on what is observed."""
    said, features, tau = run.student_output(), run.observe(), run.settings.temperature
    found = dict.fromkeys(TYPES, 0.0)
    found["label"] = cross_entropy(said.logits, features.labels)
    for k in range(2):
        p, log_q = softmax(features.teacher_logits[:, k] / tau, 1), log_softmax(said.logits / tau, 1)
        found["response"] += 0.5 * tau**2 * (p * (p.log() - log_q)).sum(1).mean()
        theirs = features.teacher_layers[k]  # [B, 2, D_k]
        found["layer"] += 0.5 * (said.projections["layers"][k] - theirs).square().mean()
        ours, other = (cosine_similarity(layers[:, 0], layers[:, 1]) for layers in (said.layers, theirs))
        found["relation"] += 0.5 * 2 * (ours - other).square().mean() / 4  # two of the four entries of a Gram matrix
    return found


def test_soft_actions_by_hand():
    layout = ActionLayout(2, TYPES)
    assert actions.space("soft", layout).shape == (4,)
    choice = actions.decode("soft", np.array([[-1.0, 0.0, 0.5, 1.0], [1, 1, -1, -1]]), layout, 2)
    assert choice.gates.tolist() == [[0.0, 0.5, 0.75, 1.0], [1, 1, 0, 0]]
    assert choice.weights.tolist() == [[0.5, 0.5]] * 2
    assert choice.kd_weight is choice.temperature_scale is None


def test_hard_actions_by_hand():
    layout = ActionLayout(4, TYPES)
    assert actions.space("hard", layout).n == 4
    choice = actions.decode("hard", np.array([1, 0, 0, 1]), layout, 1)
    assert choice.gates.tolist() == [[1, 0, 0, 1]]
    assert choice.weights.tolist() == [[0.25] * 4]


def test_types_are_those_of_the_setting_in_order_then_the_label(make):
    assert make().unwrapped.selection.layout.knowledge == TYPES
    env = make(knowledge="relation,response(strength=2)")
    assert env.unwrapped.selection.layout.knowledge == ("relation", "response", "label")
    assert env.action_space.shape == (3,)


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_at_strength_one_there_is_no_gate_for_labels_and_none_are_read(make, action, of_kind):
    env = make(action=action, kd_weight=1.0)
    assert env.unwrapped.selection.layout.knowledge == TYPES[:3]
    assert env.action_space.shape == (3,)
    task = of_kind("image", 2)["task"]
    other = dataclasses.replace(task, train=dataclasses.replace(task.train, labels=np.roll(task.train.labels, 7)))
    blind = make(action=action, kd_weight=1.0, task=other)
    chosen = np.ones(3, dtype=env.action_space.dtype)
    for one in (env, blind):
        one.reset(seed=0)
        one.step(chosen)
    assert torch.equal(weights_of(env), weights_of(blind))
    labelled, seen = make(action=action), make(action=action, task=other)
    for one in (labelled, seen):
        one.reset(seed=0)
        one.step(np.ones(4, dtype=env.action_space.dtype))
    assert not torch.equal(weights_of(labelled), weights_of(seen)), "below strength 1 they count"


@pytest.mark.parametrize(
    ("action", "chosen", "gates"),
    [
        ("soft", [-0.5, 1.0, 0.2, -1.0], [0.25, 1.0, 0.6, 0.0]),
        ("soft", [0.0, -1, -1, 1], [0.5, 0, 0, 1]),
        ("hard", [1, 0, 1, 1], [1, 0, 1, 1]),
    ],
)
def test_gates_are_the_strengths_of_the_loss(make, action, chosen, gates):
    """The setting's kd_weight .3 plays no part; factors in ``knowledge`` do."""
    env = make(action=action, knowledge="response,layer(strength=50),relation", optimizer="sgd(lr=0.1)")
    env.reset(seed=0)
    selection, run = env.unwrapped.selection, env.unwrapped.distillation
    parts, factors = by_hand(run), {"layer": 50.0}
    expected = sum(gate * factors.get(name, 1.0) * parts[name] for name, gate in zip(TYPES, gates, strict=True))
    assert all(float(part.detach()) > 1e-4 for part in parts.values())
    decision = selection.decision(actions.decode(action, np.array(chosen), selection.layout, 1))
    torch.testing.assert_close(run.per_example_loss(decision).mean(), expected, rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(expected, run.student.parameters, retain_graph=True, materialize_grads=True)
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    env.step(np.array(chosen, dtype=env.action_space.dtype))
    for parameter, was, slope in zip(run.student.parameters, before, gradient, strict=True):
        torch.testing.assert_close(parameter.detach(), was - 0.1 * slope, rtol=1e-6, atol=1e-9)


def test_nothing_chosen_teaches_nothing(make):
    env = make(action="hard")
    env.reset(seed=0)
    before = weights_of(env)
    *_, reward, _, _, info = env.step(np.zeros(4, dtype=np.int8))
    assert torch.equal(weights_of(env), before)
    assert reward == info["reward_terms"]["improvement"] == 0.0


# Phases


def held_out_loss(run, student=None):
    (rows,) = run.meter.rows
    inputs, labels = run.meter.at(rows, run.student.device)
    return float(cross_entropy((student or run.student).predict(inputs), labels))


def test_a_phase_is_its_mini_batches_one_by_one(make):
    """Seven updates in phases of three: two whole ones and one of one; what is paid is the decrease over the phase."""
    options = {"updates": 7, "reward_labels": 30, "reward_examples": 30, "optimizer": "adam(lr=0.02)"}
    phased, single = make(updates_per_phase=3, **options), make(**options)
    for env in (phased, single):
        env.reset(seed=1)
    rng, steps, taught = np.random.default_rng(0), heard(phased), 0
    losses = [held_out_loss(phased.unwrapped.distillation)]
    for length in (3, 3, 1):
        chosen = rng.uniform(-1, 1, 4).astype(np.float32)
        expected = [single.step(chosen) for _ in range(length)]
        seen, reward, terminated, truncated, info = phased.step(chosen)
        taught += length
        losses.append(held_out_loss(phased.unwrapped.distillation))
        assert len(steps) == taught
        assert same(seen, expected[-1][0])
        assert torch.equal(weights_of(phased), weights_of(single))
        assert reward == pytest.approx(losses[-2] - losses[-1], abs=1e-6)
        assert reward == pytest.approx(sum(step[1] for step in expected), abs=1e-6)
        assert info["reward_terms"]["improvement"] == pytest.approx(reward)
        assert np.array_equal(info["example_ids"], expected[-1][4]["example_ids"]), "of the phase's last mini-batch"
        assert (terminated, truncated) == (taught == 7, False)
    assert abs(losses[0] - losses[-1]) > 0.001
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        phased.step(chosen)


@pytest.mark.parametrize(("every", "measured"), [(1, [3, 6, 9, 10]), (4, [6, 10]), (0, [10])])
def test_there_is_one_measurement_a_phase(make, every, measured):
    """On one draw, before and after: a draw of its own begins between phases only."""
    env = make(updates=10, updates_per_phase=3, reward_every=every)
    env.reset(seed=0)
    run, found = env.unwrapped.distillation, []
    for _ in range(4):
        before = int(run.meter.measurements[0])
        *_, info = env.step(env.action_space.sample())
        assert run.meter.measurements[0] - before == ("improvement" in info["reward_terms"])
        if "improvement" in info["reward_terms"]:
            found.append(int(run.update[0]))
    assert found == measured


def test_the_last_validation_of_a_phase_is_shown(make):
    env = make(updates=10, updates_per_phase=4, validation_every=3)
    env.reset(seed=0)
    steps, run = heard(env), env.unwrapped.distillation
    shown = [env.step(env.action_space.sample())[4]["validation"] for _ in range(3)]
    measured = {number: float(step.validation[0]) for number, step in enumerate(steps, 1) if step.validation is not None}
    assert list(measured) == [3, 6, 9, 10]
    assert shown == [measured[3], measured[6], measured[10]]
    assert shown[-1] == run.validate()[1][0]


def test_costs_and_credit_of_a_phase(make):
    """Rewards and calls are sums over its mini-batches, credit is the last one's."""
    options = {"updates": 6, "credit": "first_order", "normalize_credit": False, "teacher_cost": 0.25}
    phased, single = make(updates_per_phase=3, **options), make(**options)
    for env in (phased, single):
        env.reset(seed=1)
    for _ in range(2):
        chosen = phased.action_space.sample()
        expected = [single.step(chosen) for _ in range(3)]
        *_, reward, _, _, info = phased.step(chosen)
        assert reward == pytest.approx(sum(step[1] for step in expected))
        assert info["reward_terms"] == {"teacher_calls": 6.0}
        assert same(info["credit"], expected[-1][4]["credit"])


def test_time_limits_count_phases():
    env = slots(1, KNOWLEDGE, updates=10, updates_per_phase=3, max_episode_steps=2, batch_size=3)
    env.reset(seed=0)
    assert [bool(env.step(env.action_space.sample())[3][0]) for _ in range(2)] == [False, True]
    assert env.unwrapped.finished.update.tolist() == [6]


# The exploration bonus


def bonus_of(step):
    """What an exploration bonus of .5 added to the last step's reward."""
    *_, reward, _, _, info = step
    assert reward == pytest.approx(info["reward_terms"]["improvement"] + info["reward_terms"]["exploration"])
    return info["reward_terms"]["exploration"] / 0.5


@pytest.mark.parametrize("phase", [1, 2])
def test_soft_actions_are_paid_for_turning_away_from_the_phase_before(make, phase):
    env = make(exploration_bonus=0.5, updates=8, updates_per_phase=phase, student="mlp(width=4)")
    env.reset(seed=0)
    one, two, opposite = [1.0, -1.0, -1.0, -1.0], [0.2, 0.6, -1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]
    expected = [1.0, 0.0, 1 - 0.6, 1.0]  # gates (1, 0, 0, 0), then (.6, .8, 0, 0)
    assert [bonus_of(env.step(np.float32(action))) for action in (one, one, two, opposite)] == pytest.approx(expected, abs=1e-6)
    env.reset(seed=0)
    assert bonus_of(env.step(np.float32(opposite))) == 1.0, "nothing is remembered after a reset"


@pytest.mark.parametrize("phase", [1, 2])
def test_hard_actions_are_paid_for_being_rare(make, phase):
    env = make(action="hard", exploration_bonus=0.5, updates=10, updates_per_phase=phase)
    env.reset(seed=0)
    one, two = [1, 0, 0, 1], [1, 0, 1, 1]
    found = [bonus_of(env.step(np.array(action))) for action in (one, two, one, one, two)]
    assert found == pytest.approx([1.0, 1.0, 2**-0.5, 3**-0.5, 2**-0.5])
    env.reset(seed=0)
    assert bonus_of(env.step(np.array(one))) == 1.0


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_a_snapshot_and_a_fork_remember_what_was_chosen(make, action):
    env, other = (make(action=action, exploration_bonus=0.5, updates=6) for _ in range(2))
    env.reset(seed=0)
    one, two = (np.array(a, dtype=env.action_space.dtype) for a in ([1, 0, 0, 0], [0, 0, 1, 1]))
    env.step(one)
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    expected = [bonus_of(env.step(chosen)) for chosen in (one, two, one)]
    assert [bonus_of(twin.step(chosen)) for chosen in (one, two, one)] == expected
    other.reset(seed=3)
    other.unwrapped.restore(state)
    assert [bonus_of(other.step(chosen)) for chosen in (one, two, one)] == expected
    assert expected[0] == (pytest.approx(2**-0.5) if action == "hard" else pytest.approx(0.0, abs=1e-6))
    assert bonus_of(twin.step(two)) == bonus_of(env.step(two)), "each remembers its own from here on"


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_each_student_of_a_population_is_paid_for_its_own_choices(action):
    options = {"exploration_bonus": 0.5, "updates": 6, "kd_weight": 0.5, "autoreset_mode": "disabled"}
    env = slots(3, KNOWLEDGE, num_students=3, batch_size=2, action=action, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    chosen = np.array([env.action_space.sample() for _ in range(3)])
    chosen[1, 0], chosen[2, :] = chosen[0, 0], chosen[1, :]
    gates = chosen if action == "hard" else (chosen + 1) / 2
    found = np.array([env.step(one)[4]["reward_terms"]["exploration"] for one in chosen]) / 0.5
    for student in range(3):
        for phase in range(3):
            if action == "hard":
                times = sum(np.array_equal(gates[phase, student], gates[past, student]) for past in range(phase + 1))
                expected = hard_exploration(np.array([times]))
            else:
                previous = gates[phase - 1, student] if phase else np.zeros(4)
                expected = soft_exploration(gates[phase, student][None], previous[None])
            assert found[phase, student] == pytest.approx(expected[0], abs=1e-6)
    assert len({tuple(column) for column in found.T.round(6)}) > 1
    env.reset(options={"reset_mask": np.array([False, True, False])})
    after = env.step(chosen[2])[4]["reward_terms"]["exploration"] / 0.5
    assert after[1] == 1.0, "a student begun again remembers nothing"
    assert (after[[0, 2]] < 0.8).all(), "the others do"


# Credit


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_what_credit_pays_is_the_decrease_to_be_expected(make, action):
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
    selection, run = env.unwrapped.selection, env.unwrapped.distillation
    chosen = np.array([0.25, -0.5, 0.75, 0.0], dtype=np.float32) if action == "soft" else np.array([1, 1, 0, 1], dtype=np.int8)
    choice = actions.decode(action, chosen, selection.layout, 1)
    expected = along_the_held_out_gradient(run, selection.decision(choice)).mean()
    *_, reward, _, _, info = env.step(chosen)
    assert reward == pytest.approx(float(expected), rel=1e-5)
    assert reward == pytest.approx(float((choice.gates * info["credit"]).sum()), rel=1e-6)
    assert (info["credit"] != 0).all()


def test_credit_of_a_type_does_not_depend_on_what_is_chosen_and_is_scaled(make):
    credits = []
    for chosen in ([1, 1, 1, 1], [0, 0, 1, 0]):
        env = make(action="hard", credit="first_order")
        env.reset(seed=0)
        *_, reward, _, _, info = env.step(np.array(chosen))
        assert reward == pytest.approx(float(info["credit"][0] @ chosen))
        credits.append(info["credit"])
    np.testing.assert_allclose(*credits)
    assert 0.1 < np.abs(credits[0]).max() < 10.0, "in units of the spread over teachers and types"


def test_decisions_of_the_core_and_of_the_environment_agree(make):
    """The same student as by a decision given to the run itself."""
    env, run = make(), make().unwrapped.distillation.fork()
    env.reset(seed=0)
    chosen = np.array([0.5, -0.5, 0.0, 1.0], dtype=np.float32)
    half = torch.full((4, 2), 0.5, dtype=torch.float64)
    strengths = {"response": 0.75, "layer": 0.25, "relation": 0.5, "label": 1.0}
    run.apply(Decision(dict.fromkeys(TYPES[:3], half), strengths, 3.0))
    env.step(chosen)
    torch.testing.assert_close(
        weights_of(env), torch.cat([parameter.detach().flatten() for parameter in run.student.parameters]), rtol=0, atol=1e-12
    )
