"""``held_credit``: where it starts, what credit does to it, and what holds it."""

import numpy as np
import pytest
import torch

from baselines.stacking import Stacking
from kd_env import tasks
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import Transition, make_policy, registry

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]


def make(policy="held_credit", **settings):
    env = make_env(Trial("digits", policy, 0, settings={"updates": 20, "reward_labels": 64, **settings}))
    agent = registry.find(policy).build(env, 0)
    observation, _ = env.reset(seed=0)
    return env, agent, observation


def taught_weights(env, agent, observation):
    """The weights that the student is taught with, ``[B, K]``."""
    return env.selection.action_kind.decode(agent.act(observation), len(observation["progress"])).weights


def follow(agent, observation, credit, steps):
    for _ in range(steps):
        action = agent.act(observation)
        nothing = np.zeros(len(action))
        agent.update(Transition(observation, action, nothing, observation, nothing.astype(bool), {"credit": credit}))


def experts_of(env):
    return tasks.load("digits").train.groups[env.selection.distillation.observe().example_ids]


def test_it_starts_as_stacking_with_a_floor():
    env, agent, observation = make("held_credit(floor=0.2,release=0)")
    stacking = make_policy(Stacking, env, 0)
    start = stacking.rule.decide(stacking.context.batch()).clamp_min(1e-4)
    start = start / start.sum(1, keepdim=True)
    expected = 0.8 * start + 0.2 / 4
    assert np.allclose(taught_weights(env, agent, observation), expected.numpy(), atol=1e-5)
    entropy = -(expected * expected.log()).sum(1) / np.log(4)
    assert np.allclose(agent.selection_entropy(observation), entropy.numpy(), atol=1e-5)


def test_credit_moves_it_and_the_hold_keeps_it():
    taught = {}
    for hold in (0.0, 1.0, 100.0):
        env, agent, observation = make(f"held_credit(hold={hold},learning_rate=0.01,release=0)")
        wrong = (experts_of(env) + 1) % 4  # where it starts, these have little weight
        credit = np.full((32, 4), -0.5)
        credit[np.arange(32), wrong] = 1.5
        before = taught_weights(env, agent, observation)[np.arange(32), wrong].mean()
        follow(agent, observation, credit, steps=150)
        taught[hold] = taught_weights(env, agent, observation)[np.arange(32), wrong].mean()
    assert before < 0.2
    assert taught[0.0] > 0.9
    assert abs(taught[100.0] - before) < 0.02
    assert taught[100.0] < taught[1.0] < taught[0.0]


def test_the_optimum_by_hand():
    """The maximum of ``sum pi r - hold KL(pi || w)`` is ``pi ~ w exp(r / hold)``."""
    env, agent, observation = make("held_credit(hold=2.0,learning_rate=0.01,floor=0.0,release=0)")
    start = taught_weights(env, agent, observation).astype(np.float64)
    credit = np.tile([1.0, -1.0, 0.5, -0.5], (32, 1))
    follow(agent, observation, credit, steps=600)
    optimum = start * np.exp(credit / 2.0)
    optimum /= optimum.sum(1, keepdims=True)
    assert np.abs(taught_weights(env, agent, observation) - optimum).max() < 0.02


def test_equal_credit_teaches_nothing():
    env, agent, observation = make()
    before = taught_weights(env, agent, observation)
    follow(agent, observation, np.zeros((32, 4)), steps=20)
    moved = np.abs(taught_weights(env, agent, observation) - before)
    assert moved.max() < 0.01, "the gradient is 0 but for rounding, which Adam turns into small steps"
    assert agent.log_odds == 4.0


def test_trust_by_hand():
    """The free policy is uniform at first and gains nothing, so one step moves the log-odds by rate times the credit of the start."""
    _, agent, observation = make("held_credit(rate=0.5)")
    start = make("held_credit(floor=0.0,release=0)")[1]
    start.act(observation)
    held = start.proposal.policies[1, 0]
    credit = np.tile([1.0, -1.0, 0.5, -0.5], (32, 1))
    agent.log_odds = 0.0
    follow(agent, observation, credit, steps=1)
    assert agent.log_odds == pytest.approx(0.5 * float((held * torch.from_numpy(credit)).sum(1).mean()), abs=1e-5)


def test_it_leaves_a_start_that_does_not_pay_and_comes_back():
    """Credit for other teachers than those of the start: credit alone takes over, although the held policy cannot follow."""
    env, agent, observation = make("held_credit(learning_rate=0.01,hold=100.0)")
    experts, rows = experts_of(env), np.arange(32)
    against, for_experts = np.full((32, 4), -0.5), np.full((32, 4), -0.5)
    against[rows, (experts + 1) % 4] = for_experts[rows, experts] = 1.5
    assert taught_weights(env, agent, observation)[rows, experts].mean() > 0.6
    follow(agent, observation, against, steps=80)
    assert agent.trust < 0.05
    assert taught_weights(env, agent, observation)[rows, (experts + 1) % 4].mean() > 0.8
    follow(agent, observation, for_experts, steps=80)
    assert agent.trust > 0.9
    assert taught_weights(env, agent, observation)[rows, experts].mean() > 0.6


def test_with_release_0_the_start_is_never_left():
    _, agent, observation = make("held_credit(release=0,learning_rate=0.01)")
    follow(agent, observation, np.tile([3.0, -1.0, -1.0, -1.0], (32, 1)), steps=30)
    assert agent.trust == 1.0


def test_a_step_without_credit_is_not_learned_from():
    _, agent, observation = make()
    before = {name: value.clone() for name, value in agent.policies.learners.state_dict().items()}
    action = agent.act(observation)
    agent.update(Transition(observation, action, np.zeros(32), observation, np.zeros(32, bool), {}))
    assert all(torch.equal(value, before[name]) for name, value in agent.policies.learners.state_dict().items())


def test_shared_credit_is_refused():
    with pytest.raises(InputError, match="held_credit learns from credit"):
        make(credit="shared")
