"""Augment images once: several stored views of each training image, so that a bank can hold the teachers' answer for each view.

The first view is the image. Each further one is moved by up to an eighth of the side (zeros come in from the border) and mirrored with
probability one half, as in published training on CIFAR (He et al. 2016, arXiv 1512.03385), where a new view is drawn in each epoch. With V
views the train split, its bank and an epoch are V times as large.
"""

from __future__ import annotations

import numpy as np

from kd_env import spec
from kd_env.tasks.memory import require_memory
from kd_env.tasks.task import Split

MAX_VIEWS = 64


def with_views(train: Split, views: int, task: str, seed: int = 0) -> Split:
    """Return the split with ``views`` views of each image, all first views first.

    Args:
        train: images in [0, 1].
        views: number of views V.
        task: name of the task, for the error message.
        seed: decides the views.

    Raises:
        InputError: ``views`` is not a whole number from 1 to :data:`MAX_VIEWS`, or the views need more memory than the machine has.
    """
    spec.numbers(f"task {spec.parse(task).name}", least=1, most=MAX_VIEWS, whole=True, views=views)
    if views == 1:
        return train
    channels, height, width = train.inputs.shape[1:]
    require_memory(f"task {task}", views * len(train), channels, height, width, f"take fewer than {views} views, or smaller images")
    inputs = np.empty((views * len(train), *train.inputs.shape[1:]), dtype=np.float32)
    inputs[: len(train)] = train.inputs
    for view in range(1, views):
        inputs[view * len(train) : (view + 1) * len(train)] = _moved(train.inputs, np.random.default_rng([seed, view]))
    groups = None if train.groups is None else np.tile(train.groups, views)
    return Split(inputs, np.tile(train.labels, views), groups, np.tile(np.arange(len(train)), views))


def _moved(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images ``[N, channels, H, W]``, each moved and perhaps mirrored."""
    height, width = images.shape[2:]
    most = max(height, width) // 8
    down, right = rng.integers(2 * most + 1, size=(2, len(images)))
    mirrored = rng.random(len(images)) < 0.5
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    moved = np.empty_like(images)
    for top, left in np.unique(np.stack([down, right], 1), axis=0):
        rows = np.flatnonzero((down == top) & (right == left))
        moved[rows] = padded[rows, :, top : top + height, left : left + width]
    moved[mirrored] = moved[mirrored][..., ::-1]
    return moved
