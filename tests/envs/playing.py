"""What the tests of environments share: small ones, episodes of them, and equality of what comes out."""

import itertools
import typing

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from torch.nn.functional import cross_entropy

from kd_env.distillation import settings
from kd_env.envs.registration import ENVIRONMENTS

TEACHERS, KNOWLEDGE, JOINT = (f"kd_env/{name}Selection-v0" for name in ("Teacher", "Knowledge", "Joint"))
SMALL = {"updates": 4, "student": "mlp(width=8)", "reward_examples": 20}
CLASSES = {name: load_env_creator(gym.spec(name).entry_point) for name in ENVIRONMENTS}
KINDS = [(name, action) for name, kind in CLASSES.items() for action in kind.action_kinds]
"""Every environment with each of its kinds of action."""
REWARDS, CREDITS = typing.get_args(settings.Reward), typing.get_args(settings.Credit)
PAID = [(reward, given) for reward, given in itertools.product(REWARDS, CREDITS) if given == "shared" or reward == "dev_improvement"]
"""Every reward with each credit that divides it."""
MODES = ["next_step", "same_step", "disabled"]


def granularities(action):
    """Knowledge is selected for a batch; all else for an instance too."""
    return ["batch"] if action in ("soft", "hard") else list(typing.get_args(settings.Granularity))


def batch(name=TEACHERS, **keywords):
    return gym.make(name, **{"batch_size": 3, **SMALL, **keywords})


def slots(num_envs=3, name=TEACHERS, **keywords):
    return gym.make_vec(name, num_envs=num_envs, vectorization_mode="vector_entry_point", **SMALL | keywords)


def same(one, two):
    """Equal to the last bit, whatever is nested in it."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
        return len(one) == len(two) and all(map(same, one, two))
    return np.array_equal(one, two)


def weights_of(env):
    """All parameters of the student, or students, in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in env.unwrapped.distillation.student.parameters])


def rollout(env, seed, action_seed=0):
    """Everything an agent sees in one episode."""
    env.action_space.seed(action_seed)
    seen, done = [env.reset(seed=seed)], False
    while not done:
        seen.append(env.step(env.action_space.sample()))
        done = np.all(seen[-1][2] | seen[-1][3])
    return seen


def heard(env):
    """The list that collects every update of the run from now on."""
    steps = []
    env.unwrapped.selection.listeners.append(steps.append)
    return steps


def along_the_held_out_gradient(run, decision, only_head=False, epsilon=1e-6):
    """By finite differences: the derivative of each example's loss, over B, along the held-out gradient at the student's rate."""
    (rows,) = run.meter.rows
    inputs, labels = run.meter.at(rows, run.student.device)
    parameters = run.student.parameters
    loss = cross_entropy(run.student.forward(inputs).logits, labels)
    gradient = torch.autograd.grad(loss, parameters, materialize_grads=True)
    head = {id(parameter) for parameter in run.student.classifier.parameters()}
    gradient = [slope * (not only_head or id(parameter) in head) for parameter, slope in zip(parameters, gradient, strict=True)]
    rate = run.student.options.rate(0.0)

    def at(step):
        moved = [parameter.detach() + step * rate * slope for parameter, slope in zip(parameters, gradient, strict=True)]
        said, total = run.student.forward_at(moved, run.batch_inputs(), run.loss.parts), 0.0
        for name, strength in decision.strengths.items():
            every = run.per_teacher_loss(name, decision.temperature, said)
            total = total + strength * (every[:, 0] if name == "label" else (decision.weights[name] * every).sum(1))
        return total

    return ((at(epsilon) - at(-epsilon)) / (2 * epsilon) / run.settings.batch_size).detach()
