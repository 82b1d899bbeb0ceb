"""A tiny task and two teachers whose outputs are known."""

import dataclasses

import numpy as np
import torch

from kd_env.tasks import Defaults, Split, Task
from kd_env.teachers import Pool
from kd_env.types import ModelOutput

SIZES = {"train": 320, "reward": 64, "validation": 64, "test": 64}
SURE, LESS_SURE = 4.0, -2.0
"""Factors of the right logits; the negative one makes a teacher wrong about every instance."""


def tiny_task():
    """The label is whether the first pixel is positive, the group whether the last one is."""
    rng, splits = np.random.default_rng(0), {}
    for name, size in SIZES.items():
        pixels = rng.normal(size=(size, 1, 2, 2)).astype(np.float32)
        splits[name] = Split(pixels, (pixels[:, 0, 0, 0] > 0).astype(np.int64), groups_of(pixels))
    return Task(
        name="tiny-learning", kind="image", class_names=("no", "yes"), group_names=("g", "h"), **splits,
        defaults=Defaults(pool="none", student="mlp(width=8)", updates=60, kd_weight=1.0, temperature=1.0, optimizer="adam(lr=0.01)"),
    )  # fmt: skip


def groups_of(pixels):
    """Return the group of each image."""
    return (pixels[:, 0, 1, 1] > 0).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class KnownTeacher:
    """A teacher whose logits are a factor, which depends on the group, times the right ones, -1 and 1."""

    name: str
    factors: tuple[float, float]

    def fingerprint(self):
        return f"{self.name} {self.factors}"

    def __call__(self, inputs):
        right = np.where(inputs[:, 0, 0, 0] > 0, 1.0, -1.0)
        logits = np.array(self.factors)[groups_of(inputs)] * right
        features = torch.from_numpy(np.stack([-logits, logits], 1)).float()
        return ModelOutput(0.5 * features, features)

    def head(self):
        return 0.5 * torch.eye(2), torch.zeros(2)


EXPERTS = Pool("tiny", (KnownTeacher("of group 0", (SURE, LESS_SURE)), KnownTeacher("of group 1", (LESS_SURE, SURE))))
"""Each teacher is right and sure in its own group, and wrong and less sure in the other."""
