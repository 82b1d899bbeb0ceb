"""What the tests of ``piloted`` share: short trials, and pilots with known metrics."""

import numpy as np

from kd_env.benchmark.run_trial import make_env, teach
from kd_env.benchmark.trial import Trial
from kd_env.policies import Transition, registry

SETTINGS = {"updates": 8, "reward_labels": 64, "reward_ce": 0.0, "student": "mlp(width=8)"}


def make(policy="piloted", **settings):
    env = make_env(Trial("digits", policy, 0, settings={**SETTINGS, **settings}))
    return env, registry.find(policy).build(env, 0)


def in_pilot_phase(policy="piloted", **settings):
    env, agent = make(policy, **settings)
    agent.begin_episode(learning=True)
    observation, _ = env.reset(seed=0)
    return env, agent, observation


def play(env, agent, observation, steps):
    for _ in range(steps):
        action = agent.act(observation)
        following, reward, terminated, _, info = env.step(action)
        agent.update(Transition(observation, action, reward, following, terminated, info))
        observation = following
    return observation


def with_metrics(agent, *metrics):
    """Let the pilots have these metrics, one measurement after the other, on both halves of the labels."""
    new_pilots, remaining = agent._new_pilots, iter([metric for metric in metrics for _ in range(2)])

    def pilots():
        students = new_pilots()
        students.evaluate = lambda rows: np.array(next(remaining), dtype=np.float64)
        return students

    agent._new_pilots = pilots


def taught(policy, metrics, **settings):
    """Teach to the end, and return the weights of every update of both students."""
    env, agent = make(policy, **settings)
    with_metrics(agent, *[metrics] * 5)
    weights, step = [], env.step

    def recorded(action):
        weights.append(action.weights["response"].numpy())
        return step(action)

    env.step = recorded
    teach(env, [agent], [0])
    return agent, np.stack(weights)
