"""What the tests of environments share: small ones, episodes of them, and equality of what comes out."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from torch.nn.functional import cross_entropy

from kd_env.envs import SB3VecEnv
from kd_env.envs.actions import ACTIONS
from kd_env.envs.credit import CREDITS as CREDIT_FUNCTIONS
from kd_env.envs.registration import ENVIRONMENTS
from kd_env.envs.rewards import REWARDS as REWARD_CLASSES

TEACHERS, KNOWLEDGE, JOINT = (f"kd_env/{name}Selection-v0" for name in ("Teacher", "Knowledge", "Joint"))
SMALL = {"updates": 4, "student": "mlp(width=8)", "reward_examples": 20}
CLASSES = {name: load_env_creator(gym.spec(name).entry_point) for name in ENVIRONMENTS}
ACTIONS_OF = {name: [action for action, kind in ACTIONS.items() if issubclass(kind, env.action_base)] for name, env in CLASSES.items()}
KINDS = [(name, action) for name, actions in ACTIONS_OF.items() for action in actions]
"""Every environment with each of its kinds of action."""
GRANULARITIES = ("instance", "batch")
REWARDS, CREDITS = tuple(REWARD_CLASSES), ("shared", *CREDIT_FUNCTIONS)
MODES = ["next_step", "same_step", "disabled"]


def granularities(action):
    """Knowledge is selected for a batch; all else for an instance too."""
    return ["batch"] if ACTIONS[action].replaces_kd_weight else list(GRANULARITIES)


EVERY = [(name, action, granularity) for name, action in KINDS for granularity in granularities(action)]
"""All that an environment can be asked to decide."""


def can_decide(name, action, granularity):
    return (name, action, granularity) in EVERY


def can_pay(reward, credit):
    """Credit divides ``dev_improvement`` alone."""
    return credit == "shared" or reward == "dev_improvement"


def batch(name=TEACHERS, **keywords):
    return gym.make(name, **{"batch_size": 3, **SMALL, **keywords})


def slots(num_envs=3, name=TEACHERS, **keywords):
    return gym.make_vec(name, num_envs=num_envs, vectorization_mode="vector_entry_point", **SMALL | keywords)


def sb3(num_envs=8, **keywords):
    """The slots for Stable-Baselines3."""
    return SB3VecEnv(slots(num_envs, autoreset_mode="same_step", **keywords))


def same(value, other):
    """Equal to the last bit, whatever is nested in it."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[name], other[name]) for name in value)
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        return len(value) == len(other) and all(map(same, value, other))
    return np.array_equal(value, other)


def weights_of(env):
    """All parameters of the student, or students, in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in env.unwrapped.distillation.student.parameters])


def rollout(env, seed, action_seed=0):
    """Everything an agent sees in one episode."""
    env.action_space.seed(action_seed)
    returned, done = [env.reset(seed=seed)], False
    while not done:
        returned.append(env.step(env.action_space.sample()))
        done = np.all(returned[-1][2] | returned[-1][3])
    return returned


def recorded_steps(env):
    """The list that collects every update of the run from now on."""
    steps = []
    env.unwrapped.selection.listeners.append(steps.append)
    return steps


def along_the_held_out_gradient(run, decision, only_head=False, epsilon=1e-6):
    """By finite differences: the derivative of each example's loss, over B, along the held-out gradient at the student's rate."""
    (rows,) = run.reward_split.positions
    inputs, labels = run.reward_split.at(rows, run.student.device)
    parameters = run.student.parameters
    loss = cross_entropy(run.student.forward(inputs).logits, labels)
    gradient = torch.autograd.grad(loss, parameters, materialize_grads=True)
    head = {id(parameter) for parameter in run.student.classifier.parameters()}
    gradient = [slope * (not only_head or id(parameter) in head) for parameter, slope in zip(parameters, gradient, strict=True)]
    rate = run.student.options.rate(0.0)

    def loss_at(step):
        moved = [parameter.detach() + step * rate * slope for parameter, slope in zip(parameters, gradient, strict=True)]
        output, total = run.student.forward_at(moved, run.batch_inputs(), run.loss.extra_outputs), 0.0
        for name, strength in decision.strengths.items():
            losses = run.per_teacher_loss(name, decision.temperature, output)
            total = total + strength * (losses[:, 0] if name == "label" else (decision.weights[name] * losses).sum(1))
        return total

    return ((loss_at(epsilon) - loss_at(-epsilon)) / (2 * epsilon) / run.settings.batch_size).detach()
