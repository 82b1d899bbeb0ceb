"""Learned policies on problems with a known answer."""

import numpy as np
import pytest
import torch

from agents.gradient_credit import GradientCredit
from agents.reinforce import Reinforce
from baselines.router import Router
from kd_env import tasks
from kd_env.benchmark.run_trial import make_env, teach
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import make_policy, registry, run_episode
from kd_env.policies.context import PolicyContext

LEARNERS = ["gradient_credit", "reinforce", "sb3:PPO(n_steps=4,batch_size=32)", "sb3:A2C", "sb3:DQN(learning_starts=32,buffer_size=200)"]


def make(policy, seed=0, updates=20, **settings):
    env = make_env(Trial("digits", policy, seed, settings={"updates": updates, **settings}))
    return env, registry.find(policy).build(env, seed)


def experts_of(env):
    """The expert of each instance of the mini-batch under way ``[B]``."""
    return tasks.load("digits").train.groups[env.selection.distillation.observe().example_ids]


def mass(agent, observation):
    with torch.no_grad():
        return agent.policy(observation).softmax(1).numpy()


# gradient_credit


def test_policy_mass_moves_to_the_teacher_with_the_credit():
    env, agent = make("gradient_credit(learning_rate=0.01)")
    observation, _ = env.reset(seed=0)
    credit = torch.full((32, 4), -0.5)
    credit[:, 2] = 1.5
    before = mass(agent, observation)[:, 2].mean()
    for _ in range(60):
        agent.update_policy(observation, credit)
    after = mass(agent, observation)[:, 2]
    assert before < 0.5
    assert after.min() > 0.95


def test_it_tells_instances_apart():
    """The credit of each instance is its own; what the teachers say is enough to learn whose it is."""
    env, agent = make("gradient_credit(learning_rate=0.01)")
    observation, _ = env.reset(seed=0)
    best = experts_of(env)
    assert len(set(best)) == 4
    credit = torch.full((32, 4), -0.5)
    credit[torch.arange(32), best] = 1.5
    for _ in range(150):
        agent.update_policy(observation, credit)
    assert (mass(agent, observation).argmax(1) == best).all()


def test_with_a_uniform_prior_it_settles_where_calculus_says():
    """``sum_k pi_k r_k - e KL(pi || uniform)`` is largest at ``pi = softmax(r / e)``."""
    env, agent = make("gradient_credit(learning_rate=0.01,prior_strength=1.0)")
    observation, _ = env.reset(seed=0)
    credit = torch.tensor([1.0, 0.0, -1.0, 0.5]).expand(32, 4)
    for _ in range(300):
        agent.update_policy(observation, credit)
    assert mass(agent, observation).mean(0) == pytest.approx(credit[0].softmax(0).numpy(), abs=0.02)


def test_without_credit_the_prior_makes_it_undecided():
    env, agent = make("gradient_credit(learning_rate=0.01)")
    observation, _ = env.reset(seed=0)
    for _ in range(200):
        agent.update_policy(observation, torch.zeros(32, 4))
    assert np.abs(mass(agent, observation) - 0.25).max() < 0.05


def test_every_teacher_keeps_its_share_of_the_floor():
    env, agent = make("gradient_credit(floor=0.2)")
    observation, _ = env.reset(seed=0)
    with torch.no_grad():
        agent.policy.gate.body[2].bias[:] = torch.tensor([50.0, 0.0, 0.0, 0.0])
    weights = env.selection.action_kind.decode(agent.act(observation), 32).weights
    assert weights == pytest.approx(np.tile([0.85, 0.05, 0.05, 0.05], (32, 1)), abs=1e-3)
    assert mass(agent, observation)[:, 0].min() > 0.999


@pytest.mark.long
def test_a_run_finds_the_right_experts():
    env, agent = make("gradient_credit(learning_rate=0.003)", updates=200)
    held_out = [env.reset(seed=100 + i)[0] for i in range(8)]
    best = [experts_of(env) for i in range(8) if env.reset(seed=100 + i)]

    def share():
        return np.mean([mass(agent, seen)[np.arange(32), expert].mean() for seen, expert in zip(held_out, best, strict=True)])

    before = share()
    run_episode(env, agent, 0)
    assert before == pytest.approx(0.25, abs=0.05)
    assert share() > before + 0.15
    assert env.finished.update.tolist() == [200]


@pytest.mark.long
def test_a_router_start_starts_with_the_router_s_choices():
    env, agent = make("gradient_credit(router_start=True)", reward_labels=256)
    router = make_policy(Router, env, 0, teacher_features=False)
    gates = agent.policy.gate.state_dict(), router.rule.gate.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(*(gate.values() for gate in gates), strict=True))
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        assert (agent.act(observation).argmax(1) == router.rule.decide(router.context.batch()).argmax(1).numpy()).mean() > 0.96
    plain = make("gradient_credit")[1]
    assert not torch.equal(plain.policy.gate.body[0].weight, agent.policy.gate.body[0].weight)


def test_it_learns_with_label_columns_and_with_head_credit():
    env, agent = make("gradient_credit", updates=3, observe_labels=True, credit="head")
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    run_episode(env, agent, 0)
    assert not all(torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))


# all of them


@pytest.mark.parametrize("policy", LEARNERS)
def test_a_run_spends_its_budget_and_is_the_same_for_a_seed(policy):
    seen = []
    for seed in (1, 1, 2):
        env, agent = make(policy, seed=seed, updates=8)
        teach(env, [agent], [seed])
        assert env.finished.update.tolist() == [8]
        assert env.finished.seeds.tolist() == [seed]
        seen.append([value.tolist() for value in env.finished.validate()])
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("policy", ["gradient_credit", "reinforce", "sb3:PPO(n_steps=4,batch_size=32)"])
def test_what_was_learned_comes_back_from_a_file(policy, tmp_path):
    env, agent = make(policy, updates=8)
    teach(env, [agent], [0])
    path = str(tmp_path / "agent.zip")
    agent.save(path)
    env, fresh = make(policy, updates=8)
    loaded = type(agent).load(path, env if policy.startswith("sb3") else PolicyContext(env, policy, agent.access))
    observation, _ = env.reset(seed=4)
    assert np.array_equal(agent.act(observation), loaded.act(observation))
    if isinstance(agent, (Reinforce, GradientCredit)):
        with torch.no_grad():
            assert torch.equal(agent.policy(observation), loaded.policy(observation))
            assert not torch.equal(fresh.policy(observation), loaded.policy(observation)), "something had been learned"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("gradient_credit(learning_rat=1)", "policy 'gradient_credit(learning_rat=1)': got an unexpected keyword argument 'learning_rat'"),
        (
            "reinforce(windows=2)",
            "policy 'reinforce(windows=2)': got an unexpected keyword argument 'windows'; options: learning_rate",
        ),
        ("uniform(x=1)", "policy 'uniform(x=1)': got an unexpected keyword argument 'x'"),
        ("sb3:PPO(n_step=16)", "sb3:PPO: no hyperparameter 'n_step'; known:"),
        ("sb3:PPO(n_steps=0)", "sb3:PPO"),
        ("sb3:PPO(env=1)", "sb3:PPO(env=1)': multiple values for argument 'env'"),
        ("sb3:DQN(n_steps=0)", "sb3:DQN"),
        ("sb3:PPO(policy=x)", "sb3:PPO: no hyperparameter 'policy'"),
        ("gradient_credit(learning_rate=fast)", "gradient_credit(learning_rate='fast')"),
        ("gradient_credit(learning_rate=-1)", "gradient_credit(learning_rate=-1): expected a number above 0"),
        ("mtkd_rl(learning_rate=0)", "mtkd_rl(learning_rate=0)(learning_rate=0): expected a number above 0"),
        ("mmkd(weight_decay=-1)", "mmkd(weight_decay=-1): expected a number of at least 0"),
        ("gradient_credit(floor=2)", "floor"),
        ("gradient_credit(prior_strength=high)", "prior_strength='high'"),
        ("gradient_credit(sharpness=-1)", "sharpness=-1"),
        ("reinforce(learning_rate=-1)", "reinforce(learning_rate=-1): expected a number above 0"),
        ("reinforce(step=0)", "reinforce(step=0)"),
        ("reinforce(initial_log_odds=x)", "initial_log_odds"),
        ("reinforce(window=0)", "window"),
        ("reinforce(window=1.5)", "window"),
        ("reinforce(student_warmup=-1)", "student_warmup"),
    ],
)
def test_a_hyperparameter_that_cannot_be_is_one_line(policy, message):
    with pytest.raises(InputError) as refused:
        make(policy)
    assert message in str(refused.value)


@pytest.mark.long
def test_a_saved_policy_keeps_its_options_and_its_prior(tmp_path):
    env, agent = make("gradient_credit(sharpness=1.0,floor=0.3,router_start=True)", updates=4)
    run_episode(env, agent, 0)
    agent.save(str(tmp_path / "policy"))
    again = GradientCredit.load(str(tmp_path / "policy"), PolicyContext(env, "gradient_credit", "reward labels"))
    observation, _ = env.reset(seed=1)
    assert np.array_equal(again.act(observation), agent.act(observation))
    credit = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    for copy in (agent, again):
        copy.optimizer = torch.optim.SGD(copy.policy.parameters(), lr=0.1)
        copy.update_policy(observation, credit)
    assert np.array_equal(again.act(observation), agent.act(observation)), "the prior is the same one"
