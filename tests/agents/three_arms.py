"""A bandit of three arms whose answer is known, and the agents that play it."""

import numpy as np
from gymnasium import spaces

from agents.exp3 import EXP3
from agents.linucb import LinUCB
from agents.sliding_ucb import SlidingUCB
from kd_env.policies import run_episode

BANDITS = [EXP3, LinUCB, SlidingUCB]
MEANS = (0.02, 0.03, 0.01)  # arm 1 is the best; random play loses .01 a pull
NOTHING = {"progress": np.zeros((1, 1), dtype=np.float32)}


class Arms:
    """Three arms that pay small noisy rewards: environment and policy context in one.

    With ``seen`` their means are drawn anew at each pull and the observation shows them.
    """

    num_envs = 1
    single_action_space = spaces.Discrete(3)

    def __init__(self, seed, seen=False, pulls=600):
        self.rng, self.seen, self.pulled, self.lost = np.random.default_rng(100 + seed), seen, [], 0.0
        self.pulls = pulls
        self.columns = {"teachers": 3, "progress": 1} if seen else {"progress": 1}

    def observation(self):
        self.means = np.array(MEANS)
        if not self.seen:
            return NOTHING
        self.means = self.rng.permutation(MEANS)
        return {"teachers": (50 * self.means[None]).astype(np.float32), **NOTHING}

    def reset(self, *, seed=None, options=None):
        return self.observation(), {}

    def step(self, actions):
        (arm,) = actions
        paid = self.means[arm] + 0.01 * self.rng.standard_normal()
        self.pulled.append(int(arm))
        self.lost += self.means.max() - self.means[arm]
        return self.observation(), np.array([paid]), np.array([len(self.pulled) == self.pulls]), np.array([False]), {}


def play(kind, pulls=600, seed=0, seen=False, **options):
    env = Arms(seed, seen, pulls)
    agent = kind(env, seed, **options)
    run_episode(env, agent, seed)
    return env, agent
