"""``crossfit_credit``: where it starts, which learner learns from which fold, and what moves the shares."""

import numpy as np
import pytest
import torch

from agents.crossfit_credit import CrossfitCredit
from baselines.stacking import Stacking
from kd_env import tasks
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.envs.credit import first_order
from kd_env.errors import InputError
from kd_env.policies import Transition, make_policy, registry

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]


def make(policy="crossfit_credit", **settings):
    env = make_env(Trial("digits", policy, 0, settings={"updates": 20, "reward_labels": 64, **settings}))
    agent = registry.find(policy).build(env, 0)
    observation, _ = env.reset(seed=0)
    return env, agent, observation


def taught_weights(env, agent, observation):
    """The weights that the student is taught with, ``[B, K]``."""
    return env.selection.action_kind.decode(agent.act(observation), len(observation["progress"])).weights


def follow(agent, observation, credit, folds):
    for fold in folds:
        action = agent.act(observation)
        nothing = np.zeros(len(action))
        info = {"credit": credit, "credit_fold": np.full(len(action), fold)}
        agent.update(Transition(observation, action, nothing, observation, nothing.astype(bool), info))


def experts_of(env):
    return tasks.load("digits").train.groups[env.selection.distillation.observe().example_ids]


def parameters_of(agent):
    """The parameters of all learners: ``[folds, policies, ...]``, policies are held and free."""
    folds = [torch.cat([value.detach().flatten(1) for value in fold.parameters()], 1) for fold in agent.policies.learners.folds]
    return torch.stack(folds)


def test_it_starts_as_stacking_with_a_floor():
    env, agent, observation = make("crossfit_credit(floor=0.2)")
    stacking = make_policy(Stacking, env, 0)
    start = stacking.rule.decide(stacking.context.batch()).clamp_min(1e-4)
    start = start / start.sum(1, keepdim=True)
    low = np.exp(-4.0)
    mixed = ((2.0 * start + low / 4) / (2.0 + low)).numpy()  # the held policy is the start at first, the free one is uniform
    assert np.allclose(taught_weights(env, agent, observation), 0.8 * mixed + 0.2 / 4, atol=1e-5)


def test_sharp_weights_are_powers_of_those_of_the_start():
    env, agent, observation = make("crossfit_credit(sharpness=3)")
    stacking = make_policy(Stacking, env, 0)
    start = stacking.rule.decide(stacking.context.batch()).clamp_min(1e-4) ** 3
    start = start / start.sum(1, keepdim=True)
    low = np.exp(-4.0)
    mixed = ((2.0 * start + low / 4) / (2.0 + low)).numpy()
    assert np.allclose(taught_weights(env, agent, observation), 0.99 * mixed + 0.01 / 4, atol=1e-5)


def test_no_learner_learns_from_the_credit_of_its_own_fold():
    _, agent, observation = make()
    before = parameters_of(agent)
    follow(agent, observation, np.tile([1.5, -0.5, -0.5, -0.5], (32, 1)), folds=[2])
    moved = (parameters_of(agent) != before).any(2)  # [folds, policies]
    assert moved.tolist() == [[True, True], [True, True], [False, False], [True, True]]


def test_without_folds_there_is_one_learner_that_always_learns():
    _, agent, observation = make(credit="first_order")
    before = parameters_of(agent)
    follow(agent, observation, np.tile([1.5, -0.5, -0.5, -0.5], (32, 1)), folds=[0])
    assert (parameters_of(agent) != before).any(2).tolist() == [[True, True]]


def test_shares_by_hand():
    """Each policy earns its credit times its factor, and the best one has a logarithm of 0."""
    _, agent, observation = make("crossfit_credit(rate=0.5,release=0.4)")
    credit = np.tile([1.0, -1.0, 0.5, -0.5], (32, 1))
    agent.log_shares = np.array([-1.0, 0.0, -3.5])
    agent.act(observation)
    earned = (agent.proposal.policies[:, 1].numpy() * credit).sum(2).mean(1)
    assert abs(earned[2]) < 1e-6, "uniform at first"
    follow(agent, observation, credit, folds=[1])
    expected = np.array([-1.0, 0.0, -3.5]) + 0.5 * np.array([1.0, 1.0, 0.4]) * earned
    expected = np.maximum(expected - expected.max(), -4.0)
    assert agent.log_shares == pytest.approx(expected, abs=1e-5)
    assert agent.shares == pytest.approx(np.exp(expected) / np.exp(expected).sum())
    assert agent.log_shares.max() == 0.0


def test_what_each_fold_says_alone_is_not_trusted():
    """In each fold another teacher pays: what is learned from the other folds loses on a fold that was not learned from."""
    _, agent, observation = make("crossfit_credit(learning_rate=0.01)")
    credits = [np.tile(np.where(np.arange(4) == fold, 1.5, -0.5), (32, 1)) for fold in range(4)]
    for fold in [0, 1, 2, 3] * 30:
        follow(agent, observation, credits[fold], [fold])
    earned = [(agent.proposal.policies[2, fold].numpy() * credits[fold]).sum(1).mean() for fold in range(4)]
    assert np.mean(earned) < -0.2
    assert agent.log_shares[2] == -4.0


def test_it_leaves_a_start_that_does_not_pay_and_comes_back():
    env, agent, observation = make("crossfit_credit(learning_rate=0.01,hold=100.0)")
    experts, rows = experts_of(env), np.arange(32)
    against, for_experts = np.full((32, 4), -0.5), np.full((32, 4), -0.5)
    against[rows, (experts + 1) % 4] = for_experts[rows, experts] = 1.5
    assert taught_weights(env, agent, observation)[rows, experts].mean() > 0.6
    follow(agent, observation, against, list(range(4)) * 25)
    assert agent.shares[2] > 0.9
    assert taught_weights(env, agent, observation)[rows, (experts + 1) % 4].mean() > 0.8
    follow(agent, observation, for_experts, list(range(4)) * 25)
    assert agent.shares[:2].sum() > 0.9
    assert taught_weights(env, agent, observation)[rows, experts].mean() > 0.6


def test_equal_credit_teaches_nothing():
    env, agent, observation = make()
    before = taught_weights(env, agent, observation)
    follow(agent, observation, np.zeros((32, 4)), [0, 1, 2, 3] * 5)
    assert np.abs(taught_weights(env, agent, observation) - before).max() < 0.01
    assert agent.log_shares.tolist() == [0.0, 0.0, -4.0]


def test_the_environment_names_the_folds_and_the_learners_follow():
    env, agent, observation = make()
    assert len(agent.policies.learners.folds) == agent.context.credit_folds == 4
    folds = []
    for _ in range(6):
        action = agent.act(observation)
        following, reward, terminated, _, info = env.step(action)
        folds.append(int(info["credit_fold"][0]))
        agent.update(Transition(observation, action, reward, following, terminated, info))
        observation = following
    assert folds == [0, 1, 2, 3, 0, 1]


def test_a_state_of_another_number_of_folds_is_refused():
    state = make()[1].state()
    with pytest.raises(InputError, match="saved with 4 folds of credit, and this environment has 2"):
        make(credit="first_order(folds=2)")[1].load_state(state)


def own_folds(run, meter, names, temperature=None):
    return first_order(run, meter, names, temperature, folds=3)


def test_folds_of_a_credit_function_of_one_s_own_are_not_learners():
    env, agent, observation = make(credit=f"{__name__}:own_folds")
    assert len(agent.policies.learners.folds) == 1
    for _ in range(3):
        action = agent.act(observation)
        following, reward, terminated, _, info = env.step(action)
        agent.update(Transition(observation, action, reward, following, terminated, info))
        observation = following
    assert info["credit_fold"][0] == 2


def test_shared_credit_is_refused():
    with pytest.raises(InputError, match="crossfit_credit learns from credit"):
        make(credit="shared")


def test_its_name_by_default_asks_for_folds():
    assert "folds=4" in CrossfitCredit.env_options["credit"]
