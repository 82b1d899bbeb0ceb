"""``uniform_reward_ce``: uniform distillation plus cross-entropy on the reward labels. A rival of every policy paid with those labels."""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform


class UniformRewardCE(Uniform):
    """Both losses at strength 1 (env keyword ``reward_ce``)."""

    access = "reward labels"
    paper = ""
    env_options = {**WEIGHTS, "reward_ce": 1.0}
