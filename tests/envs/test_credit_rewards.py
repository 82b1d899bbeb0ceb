"""From credit to reward: the formulas by hand, what a step pays, and credit by a function of your own."""

import itertools

import numpy as np
import pytest
import torch
from pairwise import chosen, pairwise
from playing import CLASSES, JOINT, KNOWLEDGE, TEACHERS, batch, same, slots
from selections import select

from kd_env.envs import credit, credit_rewards, credit_scale
from kd_env.envs.credit_rewards import CreditOfStep
from kd_env.errors import InputError
from kd_env.types import Decision, DecodedAction

PAIRS = torch.tensor([[[1.0, 2.0], [3.0, -4.0]]])  # [1, M = 2, K = 2]
LABEL = torch.tensor([[5.0]])
WEIGHTS = torch.tensor([[0.25, 0.75]])


def test_teachers_are_paid_their_weighted_credit_of_all_types():
    by_type = {"response": torch.tensor([[1.0, 3.0], [2.0, 2.0]]), "layer": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    decision = Decision({"response": weights, "layer": weights}, {"response": 2.0, "layer": torch.tensor(10.0)}, 1.0)
    reward, shown = credit_rewards.teacher_reward(by_type, decision, normal=False)
    assert shown["credit"].tolist() == [[2.0, 16.0], [14.0, 4.0]]
    assert reward.tolist() == [9.0, 14.0]
    reward, shown = credit_rewards.teacher_reward(by_type, decision, normal=True)
    assert shown["credit"].tolist() == [[-1.0, 1.0], [1.0, -1.0]]
    assert reward.tolist() == [0.0, 1.0]


def test_types_are_paid_as_their_teachers_mix_them_times_their_gates():
    reward, shown = credit_rewards.knowledge_reward(PAIRS, LABEL, WEIGHTS, torch.tensor([[1.0, 0.5, 0.0]]))
    assert shown["credit"].tolist() == [[1.75, -2.25, 5.0]]
    assert reward.tolist() == [1.75 - 1.125]
    reward, shown = credit_rewards.knowledge_reward(PAIRS, LABEL[:, :0], WEIGHTS, torch.tensor([[1.0, 0.5]]))
    assert shown["credit"].tolist() == [[1.75, -2.25]], "without labels there is no third type"
    assert reward.tolist() == [1.75 - 1.125]


def test_joint_decisions_are_paid_types_at_the_kd_weight_and_the_label_at_the_rest():
    kd_weight = torch.tensor([0.2])
    reward, shown = credit_rewards.joint_reward(PAIRS, LABEL, WEIGHTS, torch.tensor([[1.0, 1.0, 1.0]]), kd_weight)
    assert shown["knowledge_credit"].tolist() == [[1.75, -2.25, 5.0]]
    assert shown["credit"].tolist() == [[4.0, -2.0]]
    assert reward.tolist() == pytest.approx([0.2 * (1.75 - 2.25) + 0.8 * 5.0])
    reward, shown = credit_rewards.joint_reward(PAIRS, LABEL, WEIGHTS, torch.tensor([[0.0, 1.0, 0.0]]), kd_weight)
    assert shown["credit"].tolist() == [[3.0, -4.0]], "of the types that are on"
    assert reward.tolist() == pytest.approx([0.2 * -2.25])


def credit_of_step(rows, normalize=False, by_type=None):
    by_type = by_type or {"response": torch.tensor([[1.0, 3.0], [5.0, 7.0]]), "label": torch.tensor([[2.0], [4.0]])}
    decoded = DecodedAction(np.full((rows, 2), 0.5, dtype=np.float32))
    return CreditOfStep(by_type, Decision({}, {}, 1.0), decoded, {"response": 10.0}, 0.5, normalize, rows)


def test_pairs_and_label_have_the_setting_s_strengths_and_are_means_where_one_decision_serves_several():
    pairs, label = credit_rewards.pairs_and_label(credit_of_step(rows=2))
    assert pairs.tolist() == [[[10.0, 30.0]], [[50.0, 70.0]]]
    assert label.tolist() == [[2.0], [4.0]]
    pairs, label = credit_rewards.pairs_and_label(credit_of_step(rows=1))
    assert pairs.tolist() == [[[30.0, 50.0]]]
    assert label.tolist() == [[3.0]]


def test_pairs_and_label_are_scaled_together():
    pairs, label = credit_rewards.pairs_and_label(credit_of_step(rows=2, normalize=True))
    size = ((10.0**2 + 30.0**2 + 2.0**2) / 3) ** 0.5
    torch.testing.assert_close(pairs[0], torch.tensor([[10.0, 30.0]]) / size)
    torch.testing.assert_close(label[0], torch.tensor([2.0]) / size)


def test_without_labels_there_is_no_credit_of_the_label():
    _, label = credit_rewards.pairs_and_label(credit_of_step(rows=2, by_type={"response": torch.zeros(2, 2)}))
    assert label.shape == (2, 0)


# Of a step


def stepped(data, **keywords):
    """A mini-batch taught through a selection; raw credit of the response beside the step."""
    keywords = {"normalize_credit": False, "batch_size": 5, "precision": "float64", "updates": 40} | keywords
    selection = select(data, reward_labels=0, **keywords)
    raw = credit.CREDITS[keywords["credit"]](selection.distillation, selection.meter, ["response"])["response"]
    return raw, selection.advance(np.tile([1, 0, 0, 1], (5, 1)))


@pytest.mark.parametrize("kind", credit.CREDITS)
def test_at_kd_weight_zero_nobody_has_credit(digits_data, kind):
    for normal in (False, True):
        raw, step = stepped(digits_data, credit=kind, kd_weight=0.0, normalize_credit=normal)
        assert raw.any(), "of a response at strength 1"
        assert not step.credit["credit"].any()
        assert not step.rewards.any()


@pytest.mark.parametrize("kind", credit.CREDITS)
def test_credit_is_paid_by_strength_and_weight(digits_data, kind):
    raw, step = stepped(digits_data, credit=kind, kd_weight=0.7)
    np.testing.assert_allclose(step.credit["credit"], 0.7 * raw, rtol=1e-12)
    np.testing.assert_allclose(step.rewards, 0.7 * (raw[:, 0] + raw[:, 3]) / 2, rtol=1e-7)


def raw_credit(env, kind, names):
    """Credit of the mini-batch that comes next, asked of a fork."""
    selection = env.unwrapped.selection.fork()
    return credit.CREDITS[kind](selection.distillation, selection.meter, names)


@pytest.mark.parametrize(
    ("kind", "normalize"),
    chosen(itertools.product(credit.CREDITS, [False, True]), [("head", False), ("first_order", True), ("counterfactual", False)]),
)
def test_a_batch_is_paid_the_mean_of_its_instances(kind, normalize):
    env = batch(credit=kind, normalize_credit=normalize, precision="float64", kd_weight=0.5)
    env.reset(seed=0)
    raw = 0.5 * raw_credit(env, kind, ["response"])["response"]
    subset = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])
    *_, reward, _, _, info = env.step(subset)
    np.testing.assert_allclose(info["credit"], credit_scale.normalize(raw) if normalize else raw, rtol=1e-9)
    c = info["credit"]
    assert reward == pytest.approx(((c[0, 0] + c[0, 3]) / 2 + 0.0 + c[2, 1]) / 3, rel=1e-6)
    assert reward != 0.0


FACTORS = "teachers,knowledge,kd_weight,abstain"


def random_actions(env, rows):
    """The first and the last type are on, and the second of the instances abstains; the rest of the decision is random."""
    env.action_space.seed(0)
    table = env.action_space.sample().reshape(rows, -1)
    last = 3 + len(env.unwrapped.selection.layout.knowledge) - 1
    table[:, [3, last]], table[:, -1] = 0.5, [-0.5, 0.5, -0.5, -0.5][:rows]
    return table


@pytest.mark.parametrize(
    ("kind", "granularity", "kd_weight"), pairwise(["head", "first_order", "counterfactual"], ["instance", "batch"], [0.3, 1.0])
)
def test_joint_credit_is_paid_as_it_was_decided(untrained, kind, granularity, kd_weight):
    """The sum over types and teachers of strength times gate times weight times credit, each at strength 1."""
    options = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "precision": "float64", "temperature": 3.0, "factors": FACTORS}
    options |= {"kd_weight": kd_weight, "granularity": granularity, "knowledge": "response,layer(strength=5)"}
    env = batch(JOINT, credit=kind, normalize_credit=False, **options, **untrained("image", 3))
    env.reset(seed=0)
    selection = env.unwrapped.selection
    types = selection.layout.knowledge
    raw = raw_credit(env, kind, types)
    rows = 4 if granularity == "instance" else 1
    action = random_actions(env, rows).ravel()
    decoded = selection.action_kind.decode(action, rows)
    *_, reward, _, _, info = env.step(action)
    expected, by_type, by_teacher = np.zeros(4), np.zeros((4, len(types))), np.zeros((4, 3))
    for b, (m, name) in itertools.product(range(4), enumerate(types)):
        row = b if granularity == "instance" else 0
        gate, decided, strength = decoded.gates[row, m], decoded.kd_weight[row], {"layer": 5.0}.get(name, 1.0)
        if name == "label":
            by_type[b, m] = raw["label"][b, 0]
            expected[b] += (1 - decided) * gate * by_type[b, m]
            continue
        for k in range(3):
            value = strength * float(raw[name][b, k])
            by_type[b, m] += decoded.weights[row, k] * value
            by_teacher[b, k] += gate * value
        expected[b] += decided * gate * by_type[b, m]
    for key, table in (("knowledge_credit", by_type), ("credit", by_teacher)):
        np.testing.assert_allclose(info[key], table.reshape(rows, -1, table.shape[1]).mean(1), rtol=1e-5, atol=1e-12)
    assert reward == pytest.approx(expected.mean(), rel=1e-5)
    assert reward != 0.0


# Credit of your own


def half_of_first_order(run, meter, names, temperature):
    return {name: 0.5 * values for name, values in credit.first_order(run, meter, names, temperature).items()}


asked = []


def constant(run, meter, names, temperature):
    """Teacher k has credit k; what it was asked is kept."""
    asked.append((tuple(names), temperature))
    rows = run.num_students * run.settings.batch_size
    by_teacher = torch.arange(run.num_teachers, dtype=run.student.dtype).expand(rows, -1)
    return {name: torch.ones(rows, 1, dtype=run.student.dtype) if name == "label" else by_teacher for name in names}


@pytest.mark.parametrize("name", CLASSES)
def test_a_credit_of_one_s_own_pays_in_every_environment(name):
    options = {"normalize_credit": False, "precision": "float64", "kd_weight": 0.5}
    own, built_in = (batch(name, credit=kind, **options) for kind in (f"{__name__}:half_of_first_order", "first_order"))
    for env in (own, built_in):
        env.reset(seed=0)
    for _ in range(3):
        action = own.action_space.sample()
        step, expected = own.step(action), built_in.step(action)
        assert step[1] == pytest.approx(0.5 * expected[1], rel=1e-9)
        np.testing.assert_allclose(step[4]["credit"], 0.5 * expected[4]["credit"], rtol=1e-9)
        assert same(step[0], expected[0])


@pytest.mark.parametrize(
    ("name", "names"), [(TEACHERS, ("response",)), (KNOWLEDGE, ("response", "hint", "label")), (JOINT, ("response", "hint", "label"))]
)
def test_credit_is_asked_for_the_types_that_are_decided(name, names):
    knowledge = "response" if name == TEACHERS else "response,hint"
    env = batch(name, credit=f"{__name__}:constant", kd_weight=0.5, knowledge=knowledge, temperature=3.0)
    env.reset(seed=0)
    asked.clear()
    env.step(env.action_space.sample())
    ((types, temperature),) = asked
    assert types == names
    assert torch.as_tensor(temperature).shape == ((3,) if name == JOINT else ()), "joint selection decides it for each instance"
    assert name == JOINT or temperature == 3.0


def test_slots_are_paid_by_a_credit_of_one_s_own():
    env = slots(3, action="one", credit=f"{__name__}:constant", normalize_credit=False, kd_weight=1.0)
    env.reset(seed=0)
    _, rewards, _, _, info = env.step(np.array([3, 0, 2]))
    assert rewards.tolist() == [3.0, 0.0, 2.0]
    assert info["credit"].tolist() == [[0.0, 1.0, 2.0, 3.0]] * 3


CANNOT_BE_USED = [
    ("first_ordr", r"unknown credit 'first_ordr'; did you mean 'first_order'\? \(or name your own as module:function\)"),
    (f"{__name__}:missing", r"credit '.*:missing' cannot be imported \(AttributeError: .*\); give module:name"),
    ("no_such_module:f", r"credit 'no_such_module:f' cannot be imported \(ModuleNotFoundError: "),
    (f"{__name__}:PAIRS", r"credit '.*:PAIRS': a Tensor is not a function; name one that takes \(run, meter, names, temperature\)"),
]


def test_a_credit_that_is_no_function_is_named():
    for credit_name, message in CANNOT_BE_USED:
        with pytest.raises(InputError, match=message):
            batch(credit=credit_name)
