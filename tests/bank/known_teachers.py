"""A small task and teachers whose outputs are known, for the tests of this folder."""

import dataclasses

import numpy as np
import torch

from kd_env.tasks import Defaults, Split, Task
from kd_env.teachers import Pool
from kd_env.types import ModelOutput

SIZES = {"train": 600, "reward": 40, "validation": 30, "test": 20}  # train is more than one build batch of 256
LAYERS, ATTENTION = frozenset({"layers"}), frozenset({"attention"})


def image_task(name="tiny", shift=0.0):
    rng = np.random.default_rng(0)
    splits = {
        split: Split(rng.random((size, 1, 2, 2)).astype(np.float32) + shift, np.arange(size) % 3, np.arange(size) % 2)
        for split, size in SIZES.items()
    }
    return Task(
        name=name, kind="image", class_names=("a", "b", "c"), group_names=("g", "h"), **splits,
        defaults=Defaults(pool="none", student="mlp", updates=1, kd_weight=1.0, temperature=2.0),
    )  # fmt: skip


@dataclasses.dataclass
class Linear:
    """A teacher whose outputs are known: pixels times a fixed matrix. It counts the examples it is run on."""

    name: str
    seed: int = 0
    width: int = 2
    examples: int = 0
    spoil: object = None  # called with the number of examples so far and the output

    def fingerprint(self):
        return f"linear{self.seed}-{self.width}"

    def outputs(self, inputs):
        pixels = torch.from_numpy(inputs).flatten(1)
        rng = np.random.default_rng(self.seed)
        return ModelOutput(*(pixels @ torch.from_numpy(rng.normal(size=(4, n))).float() for n in (3, self.width)))

    def __call__(self, inputs):
        self.examples += len(inputs)
        output = self.outputs(inputs)
        return self.spoil(self.examples, output) if self.spoil else output


@dataclasses.dataclass
class Layered(Linear):
    """A teacher with two layers, and attention over three tokens."""

    def outputs(self, inputs):
        output = super().outputs(inputs)
        layers = torch.stack([output.features, 2 * output.features], 1)
        scores = output.logits[:, None, None] * torch.arange(1.0, 4.0).view(3, 1) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
        return output._replace(layers=layers, attention=scores.softmax(3))


class Interruptible:
    """A teacher that returns its inputs, counts the examples it is run on, and may be stopped."""

    name = "interruptible"

    def __init__(self, stop_after=None, scale=1.0):
        self.examples, self.stop_after, self.scale = 0, stop_after, scale

    def fingerprint(self):
        return f"interruptible {self.scale}"

    def __call__(self, inputs):
        if self.stop_after is not None and self.examples >= self.stop_after:
            raise KeyboardInterrupt
        self.examples += len(inputs)
        values = self.scale * torch.from_numpy(inputs).flatten(1)
        return ModelOutput(values[:, :10], values[:, :5])


def make_pool(*teachers):
    return Pool("linear", teachers or (Linear("one", 1, 2), Linear("two", 2, 5)))


def layered_pool():
    return make_pool(Layered("one", 1, 2), Layered("two", 2, 5))


def left_behind(folder):
    """Names in a folder, without lock files."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def spoiled(what, at, value):
    """A ``spoil`` that puts ``value`` into the output for example ``at`` of train; the first call, of one example, is for the shapes."""

    def spoil(examples, output):
        first = examples - 1 - len(output.logits)
        if len(output.logits) > 1 and first <= at < examples - 1:
            getattr(output, what)[at - first, 0] = value
        return output

    return spoil
