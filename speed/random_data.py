"""Random examples and random teachers of given sizes, for measurements that do not depend on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor

from kd_env.tasks.in_memory import from_datasets
from kd_env.tasks.task import Defaults, Split, Task

HELD_OUT = 256
"""Examples in each held-out split, at least one for each class."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a run. By default they are those of ``digits``.

    Attributes:
        batch_size: examples in a mini-batch B.
        teachers: number of teachers K.
        students: number of students S.
        classes: number of classes C.
        words: words in the longest text; 0 for images.
        shortest: words in the shortest text; 0 for equal lengths.
        examples: examples in the train split N.
    """

    batch_size: int = 32
    teachers: int = 4
    students: int = 1
    classes: int = 10
    words: int = 0
    shortest: int = 0
    examples: int = 1024


def random_teachers(sizes: Sizes) -> list[Callable[[np.ndarray], Tensor]]:
    """Return teachers whose logits are random and the same at each call."""

    def answer(seed: int, inputs: np.ndarray) -> Tensor:
        return torch.randn(len(inputs), sizes.classes, generator=torch.Generator().manual_seed(seed))

    return [partial(answer, seed) for seed in range(sizes.teachers)]


def random_task(sizes: Sizes) -> Task:
    """Return a task of random images of 8 x 8 pixels, or of texts of random words."""
    if sizes.words:
        return from_datasets(random_texts(sizes), text="text", name="random-texts")
    rng, held_out = np.random.default_rng(0), max(HELD_OUT, sizes.classes)

    def images(count: int) -> Split:
        return Split(rng.random((count, 1, 8, 8), dtype=np.float32), np.arange(count) % sizes.classes, np.zeros(count, dtype=np.int64))

    return Task(
        name="random-images",
        kind="image",
        train=images(sizes.examples),
        reward=images(held_out),
        validation=images(held_out),
        test=images(held_out),
        class_names=tuple(map(str, range(sizes.classes))),
        group_names=("all",),
        defaults=Defaults(pool="own", student="mlp(width=24)", updates=1, kd_weight=1.0, temperature=2.0),
    )


def random_texts(sizes: Sizes) -> DatasetDict:
    """Return texts of random words."""
    rng, words = np.random.default_rng(0), np.array([f"word{number}" for number in range(200)])

    def texts(count: int) -> Dataset:
        lengths = rng.integers(sizes.shortest or sizes.words, sizes.words + 1, count)
        drawn = [" ".join(rng.choice(words, length)) for length in lengths]
        return Dataset.from_dict({"text": drawn, "label": [number % sizes.classes for number in range(count)]})

    held_out = max(HELD_OUT, sizes.classes)
    return DatasetDict({"train": texts(sizes.examples), **{name: texts(held_out) for name in ("reward", "validation", "test")}})
