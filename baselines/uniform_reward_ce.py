"""``uniform_reward_ce``: uniform distillation plus cross-entropy on the reward labels; a rival of policies that are paid with them."""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform
from kd_env.policies import Range, SearchSpace


class UniformRewardCE(Uniform):
    """Weights of 1/K, with both losses at strength 1 (env keyword ``reward_ce``)."""

    access = "reward labels"
    paper = ""
    env_options = {**WEIGHTS, "reward_ce": 1.0}
    search_space: SearchSpace = {"reward_ce": Range(0.1, 10.0, log=True)}
