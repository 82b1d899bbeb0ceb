"""What the tests of weighting rules share: logits of known probabilities, hard cases, short trials, and what a rule decides."""

import math

import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry
from kd_env.types import Decision

SMALL_TEXT = "domains(train=64,reward=32,validation=32,test=32)"


def logits_of(*teachers):
    """Probabilities ``K x [C]`` of one instance -> logits ``[1, K, C]``, off by a constant as logits are."""
    return torch.tensor([teachers], dtype=torch.float64).log() + 1.5


def with_probability(p, classes=4):
    """Logits that give class 0 the probability ``p``."""
    return [math.log(p / (1 - p) * (classes - 1)), *[0.0] * (classes - 1)]


def drawn(teachers, rows=40, classes=5, seed=0):
    """Teacher logits, student logits and labels."""
    generator = torch.Generator().manual_seed(seed)
    teacher_logits = 4 * torch.randn(rows, teachers, classes, generator=generator, dtype=torch.float64)
    student = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return teacher_logits, student, torch.randint(classes, (rows,), generator=generator)


def extreme(teachers, classes=4):
    """Float32 logits of teachers and student, each instance another mixture of the utterly sure, the uniform and the ordinary."""
    sure = 1e4 * torch.eye(classes)[torch.arange(teachers) % classes]  # [K, C]
    flat, ordinary = torch.zeros(teachers, classes), torch.linspace(-1, 2, teachers * classes).view(teachers, classes)
    one_sure = torch.cat([sure[:1], flat[1:]])
    teacher_logits = torch.stack([sure, flat, ordinary, one_sure, sure.flip(0), -sure])
    student = torch.stack([flat[0], sure[0], ordinary[0], flat[0], ordinary[0], sure[0]])
    return teacher_logits, student, torch.tensor([0, 1, 2, 3, 0, 0])


def env_and_policy(name, task="digits", teachers=None, seed=0, **settings):
    env = make_env(Trial(task, name, seed, teachers, settings={"updates": 4, **settings}))
    env.reset(seed=seed)
    return env, registry.find(name).build(env, seed)


def acted_weights(env, policy):
    """Teacher weights ``[rows, K]`` that the policy's next action means; of a whole decision, those of its first knowledge type."""
    action = policy.act(env.selection.observation())
    if isinstance(action, Decision):
        return next(iter(action.weights.values())).numpy()
    return env.selection.action_kind.decode(action, env.selection.num_slots).weights


def decided(policy):
    """What the rule of ``policy`` decides about the mini-batch about to be taught."""
    return policy.rule.decide(policy.context.batch())
