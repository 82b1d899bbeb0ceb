"""Policies of the environments for knowledge and for joint selection, and their runs by the command."""

import numpy as np

from kd_env.benchmark import records
from kd_env.cli import invoke

UPDATES = 12
KNOWLEDGE, JOINT = "kd_env/KnowledgeSelection-v0", "kd_env/JointSelection-v0"


class Soft:
    """Any strengths, half the time next to none."""

    access = "nothing"
    environment = KNOWLEDGE

    def __init__(self, env, seed):
        self.rng, self.size = np.random.default_rng(seed), env.single_action_space.shape[0]

    def act(self, observation):
        return self.rng.uniform(-1, 1, (len(observation["progress"]), self.size)).astype(np.float32)


class Hard(Soft):
    """Any of the types."""

    env_options = {"action": "hard"}

    def act(self, observation):
        return self.rng.integers(2, size=(len(observation["progress"]), self.size)).astype(np.int8)


class Everything(Soft):
    """Any action of all factors; now and then it abstains."""

    environment = JOINT


class Learner(Everything):
    """As a learner that keeps what it was paid, and starts a second student before its budget ends."""

    env_options = {"credit": "head"}

    def learn(self, env, num_updates):
        observation, _ = env.reset(seed=7)
        env.step(self.act(observation))
        observation, _ = env.reset(seed=int(self.rng.integers(9)))
        self.paid = 0.0
        for _ in range(num_updates):
            observation, reward, _, _, _ = env.step(self.act(observation))
            self.paid += reward.mean()


POLICIES = {
    "soft": ("Soft", {"kd_weight": 0.5}),
    "soft without labels": ("Soft", {"kd_weight": 1.0}),
    "soft in phases": ("Soft", {"kd_weight": 0.5, "updates_per_phase": 3, "exploration_bonus": 0.1}),
    "hard": ("Hard", {"kd_weight": 0.5, "exploration_bonus": 0.1}),
    "joint": ("Everything", {"kd_weight": 0.5, "batch_size": 16}),
    "joint without labels": ("Everything", {"kd_weight": 1.0, "batch_size": 16}),
    "joint, two factors": ("Everything", {"kd_weight": 0.5, "factors": "kd_weight,temperature", "batch_size": 16}),
    "joint for the batch": ("Everything", {"kd_weight": 0.5, "granularity": "batch", "teacher_cost": 0.1}),
    "joint of a dropout student": ("Everything", {"student": "mlp(width=8,dropout=0.3)", "batch_size": 16}),
}


def command(policy, settings, out):
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    name = f"{__name__}:{policy}"
    return ["run", "--task", "digits", "--policy", name, "--seeds", "3", "--updates", str(UPDATES), "--quiet", "--out", str(out), *words]


def run_case(case, folder):
    """Run a case by the command; return the folder and the record."""
    assert invoke(command(*POLICIES[case], folder)) == 0
    return folder, records.read(folder)[0]
