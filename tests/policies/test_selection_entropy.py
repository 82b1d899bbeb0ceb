"""How undecided a policy is: the entropy of its own probabilities, where it has any; recording it changes nothing."""

import math

import numpy as np
import pytest
import torch

from agents.entropy import bernoulli_entropy, normalized_entropy
from kd_env.benchmark.recorder import Recorder
from kd_env.benchmark.run_trial import make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry

SETTINGS = {"updates": 12, "student": "mlp(width=8,dropout=0.3)", "batch_size": 8, "validation_every": 4}


def make(policy, **settings):
    env = make_env(Trial("digits", policy, 0, settings=SETTINGS | settings))
    agent = registry.find(policy).build(env, 0)
    return agent, env.reset(seed=0)[0], env


def entropy_of(policy, folder, **settings):
    return run_trial(Trial("digits", policy, 0, settings=SETTINGS | settings), folder)["selection_entropy"]


# the numbers


def test_entropies_by_hand():
    assert bernoulli_entropy(np.full((2, 4), 0.5)).tolist() == [1.0, 1.0]
    assert bernoulli_entropy(np.array([[0.0, 1.0], [1.0, 1.0]])).tolist() == [0.0, 0.0]
    # of a coin of 1/4: 2 - (3/4) log2 3; the other one is certain
    assert bernoulli_entropy(np.array([[0.25, 1.0]]))[0] == pytest.approx((2 - 0.75 * math.log2(3)) / 2)
    assert normalized_entropy(np.eye(3)).tolist() == [0.0] * 3
    assert normalized_entropy(np.full((1, 5), 0.2)).tolist() == pytest.approx([1.0])
    # (1/2, 1/4, 1/4): 3/2 ln 2
    assert normalized_entropy(np.array([[0.5, 0.25, 0.25]]))[0] == pytest.approx(1.5 * math.log(2) / math.log(3))
    assert normalized_entropy(np.ones((2, 1))).tolist() == [0.0, 0.0], "of one teacher there is nothing to choose"
    assert bernoulli_entropy(np.float32([[1e-30, 1.0 - 1e-7]])) < 1e-5


def test_reinforce_of_even_odds_is_one_and_a_decided_one_is_not():
    agent, observation, _ = make("reinforce(initial_log_odds=0)")
    assert agent.selection_entropy(observation).tolist() == [1.0] * 8
    with torch.no_grad():
        agent.policy.bias.copy_(torch.tensor([0.25, 0.5, 0.5, 1.0 - 1e-12]).logit(eps=1e-12))
    expected = ((2 - 0.75 * math.log2(3)) + 1 + 1 + 0) / 4
    assert agent.selection_entropy(observation).tolist() == pytest.approx([expected] * 8, abs=1e-5)


def test_exp3_by_hand():
    agent, observation, _ = make("exp3(gamma=0.3)")
    assert agent.selection_entropy(observation).tolist() == pytest.approx([1.0])
    agent.log_weights = np.log([4.0, 2.0, 1.0, 1.0])
    # .7 w / 8 + .3 / 4
    p = np.array([0.425, 0.25, 0.1625, 0.1625])
    assert agent.selection_entropy(observation)[0] == pytest.approx(-(p * np.log(p)).sum() / math.log(4))


def test_gradient_credit_is_as_undecided_as_its_weights():
    agent, observation, _ = make("gradient_credit")
    weights = agent.probabilities(observation)
    assert agent.selection_entropy(observation) == pytest.approx(-(weights * np.log(weights)).sum(1) / math.log(4))


def test_mtkd_rl_is_the_mean_over_its_heads():
    agent, observation, _ = make("mtkd_rl")
    with torch.no_grad():
        for name, bias in (("response", [math.log(3.0), 0.0, -1e9, -1e9]), ("hint", [0.0] * 4)):
            agent.agent.heads[name].weight.zero_()
            agent.agent.heads[name].bias.copy_(torch.tensor(bias))
    # response (3/4, 1/4): 2 - (3/4) log2 3 bits of log2 4; hint: 1
    expected = ((2 - 0.75 * math.log2(3)) / 2 + 1) / 2
    assert agent.selection_entropy(observation).tolist() == pytest.approx([expected] * 8, abs=1e-6)


def test_ppo_is_that_of_its_distribution():
    agent, observation, _ = make("sb3:PPO(n_steps=4,batch_size=32)")
    policy = agent.model.policy
    tensors = {name: torch.from_numpy(block) for name, block in observation.items()}
    with torch.no_grad():
        p = policy.action_net(policy.mlp_extractor.forward_actor(policy.extract_features(tensors))).sigmoid().double().numpy()
    entropy = (-p * np.log2(p) - (1 - p) * np.log2(1 - p)).mean(1)
    assert agent.selection_entropy(observation) == pytest.approx(entropy, abs=1e-6)
    assert entropy.min() > 0.99, "it starts nearly undecided"
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(torch.tensor([0.0, 0.0, 100.0, -100.0]))
    assert agent.selection_entropy(observation).tolist() == pytest.approx([0.5] * 8)


# in records


@pytest.mark.parametrize(("policy", "expected"), [("random_single", 1.0), ("random_hard", 1.0), ("exp3(gamma=1)", 1.0)])
def test_a_policy_that_draws_evenly_is_undecided(policy, expected, tmp_path):
    record = run_trial(Trial("digits", policy, 0, settings=SETTINGS), tmp_path)
    assert record["selection_entropy"] == pytest.approx(expected)
    if policy != "random_hard":
        assert record["weight_entropy"] == 0.0, "though each mini-batch has one teacher"


@pytest.mark.parametrize(
    "policy",
    ["uniform", "single:1", "random_soft", "lookahead", "linucb", "akd(training_episodes=1)", "sb3:DQN(learning_starts=8)", "sb3:SAC"],
)
def test_a_policy_without_probabilities_has_none(policy, tmp_path):
    assert entropy_of(policy, tmp_path) is None


def test_it_is_the_mean_over_the_measurements_of_validation(tmp_path, monkeypatch):
    """Validation is measured at updates 4, 8 and 12. At 12 the student has finished, so no entropy is recorded."""
    values = iter([0.25, 0.75, 0.9])
    monkeypatch.setattr("agents.exp3.EXP3.selection_entropy", lambda self, observation: np.array([next(values)]))
    assert entropy_of("exp3", tmp_path) == 0.5


@pytest.mark.parametrize(
    "policy",
    [
        "reinforce",
        "gradient_credit",
        "ppo(rollout=4)",
        "exp3",
        "mtkd_rl",
        "random_single",
        "random_hard",
        "sb3:PPO(n_steps=4,batch_size=32)",
    ],
)
def test_recording_it_changes_no_bit(policy, tmp_path, monkeypatch):
    trial = Trial("digits", policy, 1, settings=SETTINGS)
    measured = run_trial(trial, tmp_path / "measured")
    monkeypatch.setattr(Recorder, "_measure_selection_entropy", lambda self: None)
    plain = run_trial(trial, tmp_path / "plain")
    assert measured.pop("selection_entropy") is not None
    assert plain.pop("selection_entropy") is None
    for record in (measured, plain):
        record.pop("wall_s"), record.pop("peak_rss_mb")
    assert measured == plain
    traces = [(tmp_path / folder / "traces" / f"{trial.id}.parquet").read_bytes() for folder in ("measured", "plain")]
    assert traces[0] == traces[1]
