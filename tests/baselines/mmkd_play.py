"""MMKD's rule in its environment: how it is made, decides and is played, and the parameters of its nets."""

import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry

TEXT = "domains(train=160,reward=48,validation=32,test=16)"


def make(policy="mmkd", seed=0, task="digits", **settings):
    env = make_env(Trial(task, policy, seed, settings={"updates": 20, **settings}))
    policy = registry.find(policy).build(env, seed)
    env.reset(seed=seed)
    return env, policy.rule


def decide(rule):
    return rule.decide(rule.context.batch())


def play(env, rule, updates):
    for _ in range(updates):
        env.step(decide(rule))


def parameters(rule):
    return [parameter.detach().clone() for parameter in rule.nets.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
