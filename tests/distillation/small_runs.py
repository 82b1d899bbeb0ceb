"""Small runs that the tests of distillations share: how they begin, how they are taught, and what is compared."""

import hashlib

import numpy as np
import torch

from kd_env.distillation import Distillation
from kd_env.distillation.reward_split import RewardSplit
from kd_env.distillation.settings import distillation_settings
from kd_env.types import Decision


def start(data, seed=0, reward_labels=40, label_seeds=None, **keywords):
    """A run; ``label_seeds`` chooses the reward labels of each student, by default the same ones."""
    settings = distillation_settings(data.task, **{"batch_size": 8, "updates": 30} | keywords)
    split = RewardSplit(data, reward_labels, label_seeds or [0] * settings.num_students)
    return Distillation(data, settings, seed, split)


def weights_for(run):
    """Random weights that follow from each student's update; nobody teaches every fifth to seventh instance."""
    of_students = []
    for update in run.update.tolist():
        weights = np.random.default_rng([11, update]).dirichlet(np.ones(run.num_teachers), run.settings.batch_size)
        weights[:: 5 + update % 3] = 0.0
        of_students.append(weights)
    return torch.from_numpy(np.concatenate(of_students)).to(run.student.dtype)


def decide(run):
    """Every knowledge type with the random weights, and the label where the setting has it."""
    kd_weight, weights = run.settings.kd_weight, weights_for(run)
    strengths = {name: term.strength * kd_weight for name, term in run.loss.terms.items()} | {"label": 1.0 - kd_weight}
    return Decision(dict.fromkeys(run.loss.terms, weights), strengths, run.settings.temperature)


def drive(run, updates):
    """Teach, and return what every update said."""
    outcomes = [run.apply(decide(run)) for _ in range(updates)]
    return [(outcome.loss.tolist(), outcome.student_ce.tolist(), outcome.diverged.tolist()) for outcome in outcomes]


def digest(run):
    """SHA-256 of weights and optimizer state, and all that is counted per student."""
    content = hashlib.sha256()
    for name, value in sorted(run.student.state().items()):
        content.update(name.encode() + value.detach().numpy().tobytes())
    return content.hexdigest(), {name: tensor.tolist() for name, tensor in run.state.tensors().items()}
