"""An agent written against Gymnasium alone learns which teacher is right for which instance."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium_ppo import Agent, Args, make_agent, make_env, train

from kd_env import tasks

pytestmark = pytest.mark.long

CHANCE = 0.25 * 15 / 16
"""Weight on the right one of four teachers where each is asked by a coin: nobody is asked once in 16."""


def evaluate(args, act, students=2):
    """Mean reward, and mean weight on the instance's expert, while ``act`` teaches fresh students."""
    env, groups, paid, share = make_env(args), tasks.load("digits").train.groups, [], []
    for student in range(students):
        observation, _ = env.reset(seed=1000 + student)
        for _ in range(args.episode_updates):
            action = act(observation)
            observation, reward, _, _, info = env.step(action.astype(np.int8))
            weights = action / np.maximum(action.sum(1, keepdims=True), 1)  # [B, K]
            share.append(weights[np.arange(args.num_envs), groups[info["example_ids"]]].mean())
            paid.append(reward.mean())
    return np.mean(paid), np.mean(share)


def test_it_learns_whom_to_ask():
    """Three seeds gave a share of .62 to .63 and a reward of .25 to .34, against .24 and .02 at most before and by chance."""
    args = Args(seed=0)
    untrained, rng = make_agent(args, make_env(args)), np.random.default_rng(0)
    trained, history = train(args)
    assert len(history) > 0.95 * args.num_updates
    assert np.isfinite(history).all()
    before_paid, before = evaluate(args, lambda seen: untrained.act(seen).numpy())
    chance_paid, chance = evaluate(args, lambda seen: rng.integers(2, size=(len(seen), 4)))
    after_paid, after = evaluate(args, lambda seen: trained.act(seen).numpy())
    assert chance == pytest.approx(CHANCE, abs=0.02)
    assert before == pytest.approx(CHANCE, abs=0.02)
    assert after > 0.5
    assert after_paid > max(before_paid, chance_paid) + 0.1
    _, decided = evaluate(args, lambda seen: trained.act(seen, deterministic=True).numpy(), students=1)
    assert decided > 0.5


def test_it_is_the_same_for_a_seed_and_leaves_the_global_generator_alone():
    args = Args(num_updates=48, episode_updates=20)
    state = torch.get_rng_state()
    runs = [train(dataclasses.replace(args, seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([parameter.detach().flatten() for parameter in agent.parameters()]) for agent, _ in runs]
    assert torch.equal(weights[0], weights[1])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(weights[0], weights[2])
    assert runs[0][1] != runs[2][1]


def test_choices_are_independent_and_as_likely_as_the_network_says():
    agent = Agent(3, 2, 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        agent.actor[-1].weight.zero_()
        agent.actor[-1].bias.copy_(torch.tensor([0.25, 0.9]).logit())
    seen = np.zeros((20_000, 3), dtype=np.float32)
    assert agent.act(seen).mean(0).tolist() == pytest.approx([0.25, 0.9], abs=0.02)
    assert agent.act(seen[:1], deterministic=True).tolist() == [[0.0, 1.0]]
    actions = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    log_prob, entropy = agent.log_prob_and_entropy(torch.zeros(2, 3), actions)
    assert log_prob.exp().tolist() == pytest.approx([0.75 * 0.1, 0.25 * 0.9])
    assert entropy.tolist() == pytest.approx([-sum(p * np.log(p) for p in (0.25, 0.75)) - sum(p * np.log(p) for p in (0.1, 0.9))] * 2)
