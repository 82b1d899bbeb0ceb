"""The router and its gate: what they learn, and which labels they read."""

import math

import numpy as np
import pytest
import torch
from rule_problems import env_and_policy
from weighing import decided

from baselines.gating import LOG_FLOOR, GatingNetwork, fit, gating_inputs
from baselines.router import Router
from kd_env import tasks
from kd_env.distillation.reward_split import labelled_positions
from kd_env.policies import make_policy
from kd_env.teachers import load_pool


def router_of(reward_labels=256, seed=0):
    env, _ = env_and_policy("uniform", reward_labels=reward_labels, seed=seed)
    return env, make_policy(Router, env, seed)


def poison(env, keep):
    """Make every reward label wrong but those of ``keep``."""
    labels = env.selection.data.labels
    wrong = np.setdiff1d(np.arange(len(labels["reward"])), keep)
    labels["reward"] = labels["reward"].clone()
    labels["reward"][wrong] = (labels["reward"][wrong] + 1) % 10


def equal(*policies):
    gates = (policy.rule.gate.state_dict().values() for policy in policies)
    return all(torch.equal(a, b) for a, b in zip(*gates, strict=True))


@pytest.mark.long
def test_the_router_is_mostly_right_with_256_labels():
    env, router = router_of()
    task, experts = tasks.load("digits"), load_pool("digits/experts", tasks.load("digits"))
    right = by_group = 0
    for update in range(20):
        env.reset(seed=update)
        batch = env.selection.distillation.observe()
        chosen = decided(router).argmax(1)
        answers = batch.teacher_logits.argmax(2)[torch.arange(32), chosen]
        right += float((answers == batch.labels).float().mean()) / 20
        by_group += float((chosen.numpy() == np.array(experts.best_for_group)[task.train.groups[batch.example_ids]]).mean()) / 20
    assert right > 0.8
    assert by_group > 0.7


@pytest.mark.long
def test_the_router_reads_no_label_that_its_run_does_not_have(monkeypatch):
    env, honest = router_of()
    env.reset(seed=0)
    labelled = env.selection.distillation.reward_split.positions[0]
    assert len(labelled) == 256
    # drawn by class, so poison would move it
    monkeypatch.setattr("kd_env.policies.context.labelled_positions", lambda labels, count, seed: labelled)
    poison(env, keep=labelled)
    assert equal(make_policy(Router, env, 0), honest)
    poison(env, keep=labelled[1:])
    assert not equal(make_policy(Router, env, 0), honest)


@pytest.mark.long
def test_the_router_has_the_labels_that_its_run_has():
    for seed in (0, 3):
        env, _ = env_and_policy("uniform", reward_labels=64, seed=seed)
        env.reset(seed=seed)
        drawn = labelled_positions(env.selection.data.labels["reward"].numpy(), 64, seed)
        assert (env.selection.distillation.reward_split.positions == drawn).all()
        assert (make_policy(Router, env, seed).context.reward_positions == drawn).all()


@pytest.mark.long
def test_the_router_is_the_same_for_a_seed():
    assert equal(router_of(reward_labels=64)[1], router_of(reward_labels=64)[1])
    assert not equal(router_of(reward_labels=64)[1], router_of(reward_labels=64, seed=1)[1])


@pytest.mark.long
def test_router_without_features_reads_the_outputs_alone():
    env, _ = env_and_policy("uniform", reward_labels=64)
    assert make_policy(Router, env, 0, teacher_features=False).rule.gate.mean.shape == (40,)
    assert make_policy(Router, env, 0).rule.gate.mean.shape == (40 + sum(env.selection.data.bank.widths),)


@pytest.mark.long
def test_a_gate_learns_who_is_right():
    """Teacher 0 is right where it is sure of class 0, else teacher 1 is."""
    generator = torch.Generator().manual_seed(0)
    sure = torch.rand(200, generator=generator) < 0.5
    logits = torch.randn(200, 2, 3, generator=generator)
    logits[sure, 0, 0] += 6.0
    inputs = gating_inputs(logits)
    right = torch.stack([sure.float(), 1 - sure.float()], 1)
    torch.manual_seed(0)
    gate = GatingNetwork(6, 2)
    fit(gate, inputs, right)
    assert float((gate(inputs).argmax(1) == (~sure).long()).float().mean()) > 0.95


def test_gate_inputs_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [100.0, 0.0]]])
    features = torch.tensor([[7.0]])
    assert gating_inputs(logits, [features])[0].tolist() == pytest.approx([-math.log(2), -math.log(2), 0.0, LOG_FLOOR, 7.0])


def test_a_gate_of_a_constant_column_is_finite():
    gate = GatingNetwork(3, 2)
    inputs = torch.ones(10, 3)
    fit(gate, inputs, torch.ones(10, 2), steps=3)
    assert gate(inputs).isfinite().all()
