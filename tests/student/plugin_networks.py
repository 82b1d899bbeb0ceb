"""Networks of a user's, and runs that teach them."""

import numpy as np
import torch
from torch import nn

from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.teachers import load_pool
from kd_env.types import Decision, ModelOutput


class Like(nn.Module):
    """The built-in ``mlp`` once more: the same layers, drawn in the same order."""

    def __init__(self, task, width=8):
        super().__init__()
        self.body = nn.Linear(task.train.inputs[0].size, width)
        self.classifier = nn.Linear(width, task.num_classes)

    def hidden(self, pixel_values):
        return self.body(pixel_values.flatten(1)).relu()

    def forward(self, pixel_values):
        features = self.hidden(pixel_values)
        return self.classifier(features), features


class Layered(Like):
    """The same with its hidden layer as layers."""

    def forward(self, pixel_values, extra_outputs=frozenset()):
        logits, features = super().forward(pixel_values)
        return ModelOutput(logits, features, features[:, None] if "layers" in extra_outputs else None)


class Dropping(Like):
    """Dropout that no module shows."""

    def hidden(self, pixel_values):
        return nn.functional.dropout(super().hidden(pixel_values), 0.3, self.training)


class Normed(Like):
    """With BatchNorm and a classifier without bias."""

    def __init__(self, task, width=8):
        super().__init__(task, width)
        self.norm = nn.BatchNorm1d(width)
        self.classifier = nn.Linear(width, task.num_classes, bias=False)

    def hidden(self, pixel_values):
        return self.norm(super().hidden(pixel_values))


class Unbiased(Like):
    def __init__(self, task, width=8):
        super().__init__(task, width)
        self.classifier = nn.Linear(width, task.num_classes, bias=False)


def with_layers(data):
    """The same task with a bank that keeps layers."""
    return EncodedTask.of(data.task, open_bank(data.task, load_pool("digits/experts", data.task), keep=frozenset({"layers"})))


def start(data, student, seed=0, module=__name__, **keywords):
    """A run; its student is a class of ``module``, or a built-in ``mlp``."""
    keywords = {"batch_size": 8, "updates": 20, "knowledge": "response,hint", "optimizer": "adam(lr=0.01)", **keywords}
    student = student if student.startswith("mlp") else f"{module}:{student}"
    return Distillation(data, distillation_settings(data.task, student=student, **keywords), seed)


def meter_of(run, examples=256):
    return RewardMeter(run.reward_split, run.seeds.tolist(), examples, measure="loss")


def teach(run, updates=5):
    rows = run.num_students * run.settings.batch_size
    losses = []
    for _ in range(updates):
        run.observe()
        weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers, dtype=run.student.dtype)
        strengths = dict.fromkeys(run.loss.terms, 1.0) | ({"label": 0.2} if run.settings.uses_hard_labels else {})
        losses.append(run.apply(Decision(dict.fromkeys(run.loss.terms, weights), strengths, 2.0)).loss)
    return np.stack(losses)


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)
