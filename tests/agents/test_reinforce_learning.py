"""How ``reinforce`` starts, what it learns from rewards, and its warm-ups."""

import math

import numpy as np
import pytest
import torch

from agents.moments import RunningMoments
from agents.reinforce import LogisticPolicies
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry, run_episode


def make(policy, seed=0, updates=20, **settings):
    env = make_env(Trial("digits", policy, seed, settings={"updates": updates, **settings}))
    return env, registry.find(policy).build(env, seed)


@pytest.mark.parametrize(("policy", "log_odds"), [("reinforce", math.log(34 / 5)), ("reinforce(initial_log_odds=0)", 0.0)])
def test_every_teacher_is_selected_with_the_same_probability_at_first(policy, log_odds):
    env, agent = make(policy, student="mlp(width=24)")
    observation, _ = env.reset(seed=0)
    with torch.no_grad():
        assert agent.policy(observation).numpy() == pytest.approx(log_odds)
    drawn = np.mean([agent.act(observation).mean() for _ in range(50)])
    assert drawn == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=0.03)


def test_its_default_learning_rate_is_the_step_over_the_number_of_columns():
    env, agent = make("reinforce(step=0.5)")
    env.reset(seed=0)
    assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 / agent.policy.weight.shape[1])


def test_its_gradient_is_the_one_worked_out_by_hand():
    """``d/dA_k mean_b r_b sum_k log pi_k(a_bk) = mean_b r_b (a_bk - sigmoid(A_k F_bk + b_k)) F_bk``."""
    env, agent = make("reinforce(baseline=False,window=2)")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        agent.policy.weight.copy_(0.3 * torch.randn(agent.policy.weight.shape, generator=generator))
        agent.policy.bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    store, weight, bias = [], 0.0, 0.0
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        agent.policy.adapt(observation)
        reward = np.linspace(-1, 2, 32)
        store.append((observation, agent.sample(observation), reward))
    a, b = agent.policy.weight.detach().clone(), agent.policy.bias.detach().clone()
    for observation, action, reward in store:
        instance = torch.from_numpy(observation["instance"])[:, None].expand(32, 4, -1)
        state = torch.cat([instance, torch.from_numpy(observation["teachers"]).view(32, 4, -1)], 2)
        state = (state - agent.policy.standardise.mean) / (agent.policy.standardise.variance.sqrt() + 1e-3)
        error = torch.from_numpy(action).float() - ((state * a).sum(2) + b).sigmoid()  # [B, K]
        scaled = torch.from_numpy(reward).float()[:, None] * error
        weight = weight + (scaled[:, :, None] * state).mean(0)
        bias = bias + scaled.mean(0)
    agent.reinforce(store)
    assert torch.allclose(-agent.policy.weight.grad, weight, atol=1e-5)
    assert torch.allclose(-agent.policy.bias.grad, bias, atol=1e-5)
    assert (torch.sign(agent.policy.bias.detach() - b) == torch.sign(bias)).all(), "up the gradient"


def test_it_learns_a_known_subset():
    env, agent = make("reinforce(learning_rate=0.05,initial_log_odds=0)")
    observation, _ = env.reset(seed=0)
    best = np.array([1, 0, 1, 0])
    for _ in range(200):
        action = agent.sample(observation)
        agent.reinforce([(observation, action, -np.abs(action - best).sum(1).astype(float))])
    with torch.no_grad():
        chance = agent.policy(observation).sigmoid().mean(0)
    assert chance[[0, 2]].min() > 0.9
    assert chance[[1, 3]].max() < 0.1


def test_rewards_are_standardised_by_the_moments_before_them():
    moments = RunningMoments(decay=0.5)
    assert moments.standardise(torch.tensor([1.0, 3.0])).tolist() == [0.0, 0.0], "nothing to compare with yet"
    # mean 2, mean square deviation 1
    assert moments.standardise(torch.tensor([2.0, 6.0])).tolist() == pytest.approx([0.0, 4.0])
    # weights 1/3 and 2/3: mean (2 + 2*4)/3 = 10/3, spread^2 (1 + 2*8)/3 = 17/3
    assert moments.standardise(torch.tensor([10 / 3 + (17 / 3) ** 0.5])).tolist() == pytest.approx([1.0], abs=1e-5)


def test_a_constant_reward_teaches_nothing_with_the_baseline():
    env, agent = make("reinforce")
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        agent.reinforce([(observation, agent.sample(observation), np.full(32, 0.7))])
    assert agent.policy.weight.abs().max() < 1e-6


def test_the_state_is_standardised_by_running_moments():
    policies = LogisticPolicies(2, 3)
    rng = np.random.default_rng(0)
    for _ in range(400):
        instance = rng.normal(5.0, 2.0, (16, 1)).astype(np.float32)
        policies.adapt({"instance": instance, "teachers": rng.normal(-1.0, 0.5, (16, 4)).astype(np.float32)})
    assert policies.standardise.mean.tolist() == pytest.approx([5.0, -1.0, -1.0], abs=0.3)
    assert policies.standardise.variance.tolist() == pytest.approx([4.0, 0.25, 0.25], rel=0.25)


def test_the_student_warm_up_teaches_with_everyone_and_learns_nothing():
    env, agent = make("reinforce(student_warmup=10,learning_rate=0.1,initial_log_odds=0)", updates=14)
    taught, moved = [], []
    env.selection.listeners.append(lambda step: taught.append(step.weights.copy()))
    env.selection.listeners.append(lambda step: moved.append(float(agent.policy.weight.detach().abs().max())))
    run_episode(env, agent, 0)
    assert all((weights == 0.25).all() for weights in taught[:10])
    assert not (taught[10] == 0.25).all()
    assert moved[10] == 0.0
    assert agent.policy.weight.abs().max() > 0


def test_a_window_makes_one_policy_update_for_several_mini_batches():
    env, agent = make("reinforce(window=5)", updates=20)
    calls = []
    update = agent.reinforce
    agent.reinforce = lambda store: (calls.append(len(store)), update(store))
    run_episode(env, agent, 0)
    assert calls == [5, 5, 5, 5]


@pytest.mark.parametrize("reward", ["dev_improvement", "student_loss"])
def test_the_selector_warm_up_is_refused_where_the_reward_needs_an_update(reward):
    with pytest.raises(InputError, match=rf"selector_warmup=5\): with the student fixed reward='{reward}' does not depend"):
        make("reinforce(selector_warmup=5)", reward=reward)


@pytest.mark.parametrize("reward", ["student_and_distillation_loss", "mixed"])
def test_the_selector_warm_up_moves_the_policy_and_not_the_student(reward):
    env, agent = make("reinforce(selector_warmup=8,learning_rate=0.05)", reward=reward)
    env.reset(seed=0)
    run = env.selection.distillation
    before, counted = [parameter.detach().clone() for parameter in run.student.network.parameters()], run.state.forward_examples.tolist()
    agent._warm_selector()
    assert agent.policy.weight.abs().max() > 0.01
    assert env.selection.distillation is run
    assert run.update.tolist() == [0]
    assert run.state.forward_examples.tolist() == [counted[0] + 8 * 32], "what the selector saw is paid for"
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.network.parameters(), strict=True))


def test_the_selector_warm_up_leaves_the_run_itself_as_it_was():
    """The student of a run whose policy is held still is the same with and without it."""
    scores = []
    for warmup in (0, 4):
        env, agent = make(f"reinforce(selector_warmup={warmup},student_warmup=5)", updates=10, reward="student_and_distillation_loss")
        agent.sample = lambda observation: np.ones((len(observation["progress"]), 4), dtype=np.int8)
        run_episode(env, agent, 0)
        scores.append([value.tolist() for value in env.finished.validate()])
    assert scores[0] == scores[1]
