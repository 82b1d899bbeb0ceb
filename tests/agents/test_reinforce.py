"""RL-KD as it is published: state, policies, update, rewards and schedule, on values worked out by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from agents.reinforce import LogisticPolicies
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.envs import decisions
from kd_env.knowledge import response
from kd_env.policies import registry, run_episode

PAPER = "reinforce(baseline=False,initial_log_odds=0)"


def make(policy=PAPER, updates=20, **settings):
    env = make_env(Trial("digits", policy, 0, settings={"updates": updates, **settings}))
    return env, registry.find(policy).build(env, 0)


def two_teachers(instance, teachers):
    return {"instance": np.array(instance, dtype=np.float32), "teachers": np.array(teachers, dtype=np.float32)}


def plain_policies(weight, bias):
    """Policies whose state is taken as it is: mean 0, and a deviation that with the 0.001 added is 1."""
    policies = LogisticPolicies(*np.shape(weight))
    with torch.no_grad():
        policies.weight.copy_(torch.tensor(weight))
        policies.bias.copy_(torch.tensor(bias))
        policies.standardise.variance.fill_((1.0 - 1e-3) ** 2)
    return policies


# state and policy


def test_the_state_is_the_embedding_beside_the_teacher_s_own_outputs():
    """``F_ik = [R(x_i); p_k(x_i)]``, and c_k last where labels are shown; the odds are ``A_k F + b_k``."""
    env, agent = make(observe_labels=True)
    observation, _ = env.reset(seed=0)
    batch = env.selection.distillation.observe()
    state = agent.policy.state(observation)
    width = batch.student.features.shape[1]
    assert state.shape == (32, 4, width + 10 + 1)
    for k in range(4):
        assert torch.allclose(state[:, k, :width], batch.student.features.clamp(-10, 10))
        assert torch.allclose(state[:, k, width:-1], batch.teacher_logits[:, k].softmax(1), atol=1e-6)
        c_k = cross_entropy(batch.teacher_logits[:, k], batch.labels, reduction="none")
        assert torch.allclose(state[:, k, -1], c_k.clamp(max=10), atol=1e-5)
    assert make()[1].policy.weight.shape == (4, width + 10), "no label is read unless it is asked for"


def test_odds_by_hand():
    policies = plain_policies([[1.0, 2.0], [0.0, -1.0]], [0.5, 0.0])
    odds = policies(two_teachers([[3.0]], [[0.25, 0.75]]))
    # 1 * 3 + 2 * .25 + .5 and 0 * 3 - .75
    assert odds[0].tolist() == pytest.approx([4.0, -0.75], abs=1e-5)


# the update


def test_a_policy_gradient_by_hand():
    """Two teachers, two instances, undecided: ``sum_k log pi_k`` has the slope ``a - 1/2`` in b_k and ``(a - 1/2) F`` in A_k."""
    _, agent = make()
    agent.policy = plain_policies([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    agent.optimizer = torch.optim.SGD(agent.policy.parameters(), lr=1.0)  # up the gradient itself
    observation = two_teachers([[1.0], [2.0]], [[0.5, 0.25], [1.0, 0.75]])
    actions, rewards = np.array([[1, 0], [1, 1]], dtype=np.int8), np.array([2.0, -4.0])
    agent.reinforce([(observation, actions, rewards)])
    # b: (2 * (.5, -.5) - 4 * (.5, .5)) / 2
    # A_1: (2 * .5 * (1, .5) - 4 * .5 * (2, 1)) / 2, A_2: (2 * -.5 * (1, .25) - 4 * .5 * (2, .75)) / 2
    assert agent.policy.bias.tolist() == pytest.approx([-0.5, -1.5])
    assert agent.policy.weight.tolist() == [pytest.approx([-1.5, -0.75], abs=1e-5), pytest.approx([-2.5, -0.875], abs=1e-5)]


def test_a_policy_gradient_of_a_decided_policy_by_hand():
    """At odds ln 3 the chance is 3/4: a selected teacher's slope is 1/4, an unselected one's -3/4; mini-batches of a window add up."""
    _, agent = make("reinforce(baseline=False,initial_log_odds=0,window=2)")
    agent.policy = plain_policies([[0.0, 0.0], [0.0, 0.0]], [math.log(3), math.log(3)])
    agent.optimizer = torch.optim.SGD(agent.policy.parameters(), lr=1.0)
    observation = two_teachers([[0.0]], [[0.0, 0.0]])
    agent.reinforce([(observation, np.array([[1, 0]], dtype=np.int8), np.array([reward])) for reward in (1.0, 2.0)])
    assert agent.policy.bias.tolist() == pytest.approx([math.log(3) + 3 / 4, math.log(3) - 9 / 4])


# rewards


@pytest.mark.parametrize("reward", ["student_loss", "student_and_distillation_loss", "mixed"])
def test_the_stored_reward_is_of_each_instance_after_the_update(reward):
    env, agent = make(
        updates=3, reward=reward, reward_mix=0.25, temperature=2.0, precision="float64", reward_labels=100, reward_examples=100
    )
    stored, seen = [], []
    agent.reinforce = lambda store: stored.extend(store)
    env.selection.listeners.append(lambda step: seen.append((step, after(env.selection, step))))
    run_episode(env, agent, 0)
    assert len(stored) == len(seen) == 3
    assert any((action.sum(1) == 0).any() for _, action, _ in stored)
    for (_, action, paid), (step, (logits, accuracy)) in zip(stored, seen, strict=True):
        ce = cross_entropy(logits, step.batch.labels, reduction="none").numpy()
        kl_of_each = response.per_teacher(logits, step.batch.teacher_logits, 2.0).numpy()
        selected = action.sum(1)
        kl = (kl_of_each * action).sum(1) / np.maximum(selected, 1)  # the mean over the selected, 0 where nobody is
        expected = {"student_loss": -ce, "student_and_distillation_loss": -ce - kl, "mixed": 0.25 * (-ce - kl) + 0.75 * accuracy}[reward]
        assert paid == pytest.approx(expected, rel=1e-6)  # a third is float32 in an action's weights
        assert np.abs(ce - step.student_ce).max() > 1e-3, "before the update it was another"


def after(selection, step):
    """Logits of the mini-batch just taught and accuracy on the reward labels, of the student as it is now."""
    run = selection.distillation
    inputs, labels = run.reward_split.at(run.reward_split.positions[0])
    logits = run.student.predict({"pixel_values": run.data.inputs["train"]["pixel_values"][step.batch.example_ids]})
    return logits.double(), float((run.student.predict(inputs).argmax(1) == labels).double().mean())


@pytest.mark.parametrize(
    ("reward", "passes"), [("student_loss", 2), ("student_and_distillation_loss", 2), ("mixed", 2), ("dev_improvement", 1)]
)
def test_the_pass_after_the_update_is_counted(reward, passes):
    env, agent = make(updates=5, reward=reward)
    counted = []
    env.selection.listeners.append(lambda step: counted.append(int(env.selection.distillation.state.forward_examples[0])))
    run_episode(env, agent, 0)
    assert counted == [32 * passes * update for update in range(1, 6)]


def test_the_second_reward_pays_for_teachers_who_agree_with_the_student():
    """With the student held still, a teacher nearer to it is paid more, right or wrong."""
    env, _ = make(reward="student_and_distillation_loss", optimizer="sgd(lr=1e-12)")
    paid = []
    for k in range(4):
        env.reset(seed=0)
        batch = env.selection.distillation.observe()
        paid.append(env.step(np.eye(4, dtype=np.int8)[[k] * 32])[1])
    temperature = env.selection.settings.distillation.temperature
    kl_of_each = response.per_teacher(batch.student.logits, batch.teacher_logits, temperature).numpy()  # [B, K]
    assert (np.array(paid).argmax(0) == kl_of_each.argmin(1)).all()
    env.reset(seed=0)
    nobody = env.step(np.zeros((32, 4), dtype=np.int8))[1]
    assert (nobody >= np.array(paid).max(0)).all(), "and for nobody most of all"


# schedule


def test_the_three_stages_follow_each_other():
    """Everyone teaches for the student's warm-up; the selector then learns on its own; then teaching and updates alternate."""
    env, agent = make(
        "reinforce(baseline=False,initial_log_odds=0,window=3,student_warmup=4,selector_warmup=5)",
        updates=13,
        reward="student_and_distillation_loss",
    )
    events, update = [], agent.reinforce
    env.selection.listeners.append(lambda step: events.append("all" if (step.weights == 0.25).all() else "some"))
    agent.reinforce = lambda store: (events.append(len(store)), update(store))
    run_episode(env, agent, 0)
    three = ["some"] * 3 + [3]
    assert events == ["all"] * 4 + [1] * 5 + three * 3


def test_a_window_is_acted_in_by_one_policy_and_then_forgotten():
    env, agent = make("reinforce(baseline=False,initial_log_odds=0,window=4,learning_rate=0.1)", updates=10)
    stores, moved = [], []
    update = agent.reinforce
    agent.reinforce = lambda store: (stores.append(list(store)), update(store))
    env.selection.listeners.append(lambda step: moved.append(agent.policy.bias.detach().clone()))
    taught = []
    env.selection.listeners.append(lambda step: taught.append(step.weights))
    run_episode(env, agent, 0)
    assert [len(store) for store in stores] == [4, 4], "what an unfinished window stored is not used"
    changes = [not torch.equal(earlier, later) for earlier, later in pairwise(moved)]
    assert changes == [False] * 3 + [True] + [False] * 3 + [True, False]
    stored = [env.selection.action_kind.decode(action, 32).weights for store in stores for _, action, _ in store]
    assert all(np.array_equal(*pair) for pair in zip(stored, taught, strict=False)), "each mini-batch once, in order"


def test_an_episode_s_learning_is_a_window_and_its_state_is_that_of_the_decision():
    env, agent = make("reinforce(baseline=False,initial_log_odds=0,window=2)", updates=4)
    stores, observed = [], []
    agent.reinforce = lambda store: stores.extend(list(store))
    act = agent.act
    agent.act = lambda observation: (observed.append(observation), act(observation))[1]
    run_episode(env, agent, 0)
    for (observation, _, _), seen in zip(stores, observed, strict=True):
        assert all(np.array_equal(observation[name], seen[name]) for name in seen)


def test_the_selector_is_warmed_up_on_the_mini_batches_that_follow():
    """The student is fixed: what is paid is of the student as it is, with the sampled subset."""
    env, agent = make(
        "reinforce(baseline=False,initial_log_odds=0,selector_warmup=3)", updates=6, reward="student_and_distillation_loss", temperature=2.0
    )
    env.reset(seed=0)
    stored = []
    agent.reinforce = lambda store: stored.extend(list(store))
    agent._warm_selector()
    run = env.selection.distillation.fork()
    assert len(stored) == 3
    for observation, action, paid in stored:
        batch = run.observe()
        assert torch.allclose(torch.from_numpy(observation["instance"]), batch.student.features.clamp(-10, 10))
        kl_of_each = response.per_teacher(batch.student.logits, batch.teacher_logits, 2.0).numpy()
        ce = cross_entropy(batch.student.logits, batch.labels, reduction="none").numpy()
        assert paid == pytest.approx(-ce - (kl_of_each * action).sum(1) / np.maximum(action.sum(1), 1), abs=1e-5)
        run.skip()


def test_the_loss_of_the_student_mixes_labels_and_the_mean_over_the_selected():
    env, _ = make(kd_weight=0.7, temperature=2.0, precision="float64")
    env.reset(seed=0)
    run = env.selection.distillation
    batch = run.observe()
    action = np.zeros((32, 4), dtype=np.int8)
    action[:16, [0, 2]] = 1  # two of four teach the first half, nobody the rest
    kind = env.selection.action_kind
    decision = decisions.of_action(run, kind, kind.decode(action, 32))
    ce = cross_entropy(batch.student.logits, batch.labels, reduction="none")
    kl_of_each = response.per_teacher(batch.student.logits, batch.teacher_logits, 2.0)
    kl = torch.where(torch.arange(32) < 16, (kl_of_each[:, 0] + kl_of_each[:, 2]) / 2, 0.0)
    assert torch.allclose(run.per_example_loss(decision).detach(), 0.3 * ce + 0.7 * kl)
