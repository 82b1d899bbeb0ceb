"""The selection under all environments: what an update pays and records, divergence, and rehearsal."""

import itertools

import numpy as np
import pytest
import torch
from pairwise import chosen
from playing import CLASSES, JOINT, KNOWLEDGE, TEACHERS, batch
from selections import actions_for, advance, select, state_of
from torch.nn.functional import cross_entropy

from kd_env.envs import decisions
from kd_env.envs.rewards import Reward, TaughtBatch
from kd_env.types import Decision

# One decision for a batch


@pytest.mark.parametrize(
    ("kind", "credit"),
    chosen(
        itertools.product([(TEACHERS, "subset"), (TEACHERS, "one"), (TEACHERS, "weights"), (JOINT, "joint")], ["shared", "first_order"]),
        [
            ((TEACHERS, "subset"), "first_order"),
            ((TEACHERS, "one"), "shared"),
            ((TEACHERS, "weights"), "first_order"),
            ((JOINT, "joint"), "shared"),
            ((JOINT, "joint"), "first_order"),
        ],
    ),
)
def test_one_decision_for_the_batch_is_that_decision_for_every_instance(kind, credit):
    name, action = kind
    options = {"action": action, "credit": credit, "precision": "float64", "normalize_credit": name == TEACHERS}
    whole, instance = batch(name, granularity="batch", **options), batch(name, **options)
    observation, each_observation = whole.reset(seed=5)[0], instance.reset(seed=5)[0]
    for _ in range(4):
        for block_name, block in observation.items():
            np.testing.assert_allclose(block, each_observation[block_name].reshape(3, -1).mean(0), atol=1e-6)
        decision = whole.action_space.sample()
        observation, reward, *_, info = whole.step(decision)
        each_observation, each_reward, *_, each_info = instance.step(np.tile(np.atleast_1d(decision), 3))
        assert reward == pytest.approx(each_reward, abs=1e-9)
        for key in ("credit", "knowledge_credit") if credit != "shared" else ():
            assert (key in info) == (key in each_info) == (key == "credit" or name == JOINT)
            if key in info:
                assert len(info[key]) == 1
                np.testing.assert_allclose(info[key], each_info[key].mean(0, keepdims=True), atol=1e-9)
    weights = [torch.cat([p.detach().flatten() for p in env.unwrapped.distillation.student.parameters]) for env in (whole, instance)]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-12)


# What a step records


def test_a_step_records_what_was_decided_and_taught(digits_data):
    selection = select(digits_data, action="subset", batch_size=3, teacher_cost=0.5, reward_every=0)
    batch_before, steps = selection.distillation.observe(), []
    selection.listeners.append(steps.append)
    action = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    step = selection.advance(action)
    assert steps == [step]
    assert step.batch is batch_before
    assert step.decision is None
    assert step.weights.tolist() == step.action.weights.tolist() == [[0.5, 0, 0, 0.5], [0] * 4, [0, 1, 0, 0]]
    ce = cross_entropy(batch_before.student.logits, batch_before.labels, reduction="none")
    np.testing.assert_allclose(step.student_ce, ce, rtol=1e-6)
    assert step.reward_terms == {"teacher_calls": pytest.approx([2, 0, 1])}
    assert step.rewards.tolist() == [-1.0, 0.0, -0.5], "no improvement is due"
    assert (step.improvement, step.active.tolist(), step.diverged.tolist()) == (None, [True], [False])


def test_a_whole_decision_is_recorded_beside_the_weights_of_its_first_type(digits_data):
    selection = select(digits_data, batch_size=3, knowledge="response,hint", kd_weight=0.5)
    first, second = torch.eye(4)[:3], torch.full((3, 4), 0.25)
    decision = Decision({"hint": second, "response": first}, {"response": 0.5, "hint": 0.5, "label": 0.5}, 2.0)
    step = selection.advance(decision)
    assert step.decision == decision
    assert step.weights.tolist() == step.action.weights.tolist() == first.tolist()
    assert step.action.gates is None
    only_label = selection.advance(Decision({}, {"label": 0.5}, 2.0))
    assert only_label.weights.tolist() == [[0.0] * 4] * 3


def test_a_finished_student_is_kept_and_begins_again_alone(digits_data):
    selection = select(digits_data, num_students=2, updates=2)
    assert selection.finished == [None, None]
    advance(selection, 1)
    selection.reset_student(1, 40)
    advance(selection, 1)
    assert selection.finished[0].update.tolist() == [2]
    assert selection.finished[1] is None
    kept = selection.finished[0]
    selection.begin(7)
    assert selection.finished == [kept, None], "over the beginning of new students"
    assert selection.distillation.seeds.tolist() == [7, 8]


# Divergence


@pytest.mark.parametrize("name", CLASSES)
def test_a_reward_that_is_not_finite_ends_a_student_whose_outputs_are_not_finite(name, monkeypatch):
    env = batch(name, reward=f"{__name__}:Infinite")
    env.reset(seed=0)
    monkeypatch.setattr(TaughtBatch, "logits", torch.full((1, 1), torch.nan))
    action = np.ones(env.action_space.shape, dtype=env.action_space.dtype)
    _, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, info["diverged"]) == (-10.0, True, True)


class Infinite(Reward):
    def pay(self, step):
        return torch.full((len(step.batch.labels),), torch.inf)


# Rehearsal

WEIGHTS = torch.tensor([[0.5, 0, 0, 0.5], [0, 0, 0, 0], [0, 1, 0, 0]])
SUBSETS = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])


def rehearsing(data, reward, **keywords):
    return select(
        data, 3, **{"batch_size": 3, "student": "mlp(width=8)", "temperature": 3.0, "reward": reward, "reward_mix": 0.25} | keywords
    )


@pytest.mark.parametrize("reward", ["student_loss", "student_and_distillation_loss", "mixed", "dev_improvement"])
def test_a_rehearsal_pays_for_the_mini_batch_before_any_update(digits_data, reward):
    selection = rehearsing(digits_data, reward)
    advance(selection, 2)
    before = selection.distillation.observe()
    logits, metric = before.student.logits, float(selection.meter.metric[0])
    ce = cross_entropy(logits, before.labels, reduction="none")
    q, p = (logits / 3).softmax(1)[:, None], (before.teacher_logits / 3).softmax(2)
    kl = (WEIGHTS * 9 * (p * (p / q).log()).sum(2)).sum(1)
    expected = {
        "student_loss": -ce,
        "student_and_distillation_loss": -ce - kl,
        "mixed": 0.25 * (-ce - kl) + 0.75 * metric,
        "dev_improvement": torch.zeros(3),
    }[reward]
    rewards = selection.rehearse(SUBSETS)
    assert rewards.dtype == np.float64
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
    assert reward != "mixed" or metric > 0.0


def test_a_rehearsal_before_the_first_update_knows_the_metric(digits_data):
    selection = rehearsing(digits_data, "mixed")
    first, second = selection.rehearse(SUBSETS), selection.meter.metric
    assert second > 0.0
    twin = rehearsing(digits_data, "student_and_distillation_loss")
    np.testing.assert_allclose(first, 0.25 * twin.rehearse(SUBSETS) + 0.75 * second, rtol=1e-5)


def test_a_rehearsal_teaches_measures_and_remembers_nothing(digits_data):
    selection, twin = (rehearsing(digits_data, "mixed") for _ in range(2))
    for each in (selection, twin):
        advance(each, 2)
    selection.listeners.append(pytest.fail)
    before = state_of(selection)
    selection.rehearse(SUBSETS)
    after = state_of(selection)
    differs = {name for name in before if before[name] != after[name]}
    assert differs == {"run.update", "run.forward_examples"}, "it goes on to the next mini-batch"
    twin.distillation.observe()
    twin.distillation.skip()
    assert state_of(twin) == after
    assert (selection.distillation.observe().example_ids == twin.distillation.observe().example_ids).all()


def test_a_rehearsal_of_one_decision_for_a_batch_is_paid_its_mean(digits_data):
    instance, whole = (rehearsing(digits_data, "student_and_distillation_loss", granularity=name) for name in ("instance", "batch"))
    rewards, reward = instance.rehearse(np.tile([1, 0, 0, 1], (3, 1))), whole.rehearse(np.array([1, 0, 0, 1]))
    assert reward.shape == (1,)
    assert reward[0] == pytest.approx(rewards.mean())


def test_a_population_rehearses_each_student_s_own(digits_data):
    keywords = {"num_students": 2, "precision": "float64"}
    selection = rehearsing(digits_data, "student_loss", **keywords)
    rewards = selection.rehearse(np.tile(SUBSETS, (2, 1)))
    for student in range(2):
        lone = select(digits_data, 3 + student, batch_size=3, temperature=3.0, reward="student_loss", precision="float64")
        np.testing.assert_allclose(rewards[3 * student : 3 * student + 3], lone.rehearse(SUBSETS), rtol=1e-9)


def test_actions_outside_the_space_are_not_rehearsed(digits_data):
    selection = rehearsing(digits_data, "student_loss")
    with pytest.raises(ValueError, match="zeros and ones"):
        selection.rehearse(SUBSETS * 2)
    assert selection.distillation.update.tolist() == [0]


# Actions and decisions


def test_an_action_and_its_decision_teach_the_same(digits_data):
    keywords = {"action": "weights", "kd_weight": 0.5, "knowledge": "response,hint(strength=3)"}
    acting, deciding = select(digits_data, 1, **keywords), select(digits_data, 1, **keywords)
    rng = np.random.default_rng(0)
    for _ in range(3):
        action = rng.uniform(-1, 1, (8, 4))
        decoded = deciding.action_kind.decode(action, 8)
        expected = acting.advance(action)
        step = deciding.advance(decisions.of_action(deciding.distillation, deciding.action_kind, decoded))
        assert step.rewards.tolist() == expected.rewards.tolist()
    assert state_of(acting) == state_of(deciding)


@pytest.mark.parametrize("name", [KNOWLEDGE])
def test_the_environment_and_the_run_agree_on_a_decision(name, untrained):
    """The same student as by a decision given to the run itself."""
    setting = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "kd_weight": 0.3, "precision": "float64", "temperature": 3.0}
    env, run = (batch(name, **setting, **untrained("image", 2)) for _ in range(2))
    run = run.unwrapped.distillation.fork()
    env.reset(seed=0)
    half = torch.full((4, 2), 0.5, dtype=torch.float64)
    strengths = {"response": 0.75, "layer": 0.25, "relation": 0.5, "label": 1.0}
    run.apply(Decision(dict.fromkeys(("response", "layer", "relation"), half), strengths, 3.0))
    env.step(np.array([0.5, -0.5, 0.0, 1.0], dtype=np.float32))
    weights, expected = (
        torch.cat([parameter.detach().flatten() for parameter in each.student.parameters]) for each in (env.unwrapped.distillation, run)
    )
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-12)


def test_inactive_students_are_neither_paid_nor_taught(digits_data):
    selection = select(digits_data, num_students=2, action="one", teacher_cost=0.5)
    before = selection.distillation.student.state_of(0)
    step = selection.advance(actions_for(selection), np.array([False, True]))
    assert step.active.tolist() == [False, True]
    assert not step.rewards[:8].any()
    assert not step.reward_terms["teacher_calls"][:8].any()
    assert (step.reward_terms["teacher_calls"][8:] == 1).all()
    assert all(torch.equal(value, before[name]) for name, value in selection.distillation.student.state_of(0).items())
