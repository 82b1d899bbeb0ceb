"""A rule that weighs all teachers equally, and an environment for it and for the rules that derive from it."""

import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial

SETTINGS = {"updates": 3, "student": "mlp(width=8)", "batch_size": 8}


class Rule:
    """Weighs all teachers equally."""

    access = "teacher outputs"
    env_options = {"action": "weights", "reward_every": 0}

    def __init__(self, context, seed=0):
        self.context = context

    def decide(self, batch):
        return torch.full((batch.num_rows, batch.num_teachers), 1.0 / batch.num_teachers)


def env_of(policy, task="digits", **settings):
    return make_env(Trial(task, f"{policy.__module__}:{policy.__name__}", 0, settings=SETTINGS | settings))
