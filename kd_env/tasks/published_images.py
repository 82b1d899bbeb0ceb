"""Make a task of a published set of images. In: its train and test examples. Out: a task, with reward and validation carved from train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.metrics import metric_notes
from kd_env.tasks.splits import four_splits
from kd_env.tasks.task import Defaults, Split, Task
from kd_env.tasks.views import with_views

PERCEPTRON = Defaults(pool="image/sizes", student="mlp(width=24)", updates=1500, kd_weight=1.0, temperature=2.0)
"""Defaults of small grey images."""
RESIDUAL = Defaults(
    pool="image/resnets",
    student="resnet8",
    updates=3000,
    kd_weight=0.5,
    temperature=4.0,
    optimizer="sgd(lr=0.05,weight_decay=0.0005,warmup=0.05,decay=cosine)",
)
"""Defaults of images in colour."""


def image_task(
    name: str,
    available: Mapping[str, Split],
    sources: Mapping[str, str],
    class_names: Sequence[str],
    metric: str,
    defaults: Defaults,
    group_names: Sequence[str] = (),
    views: int = 1,
) -> Task:
    """Return the task.

    Args:
        name: name of the task.
        available: the published splits, ``train`` and ``test``.
        sources: where each of them comes from, for the notes.
        class_names: names of the classes.
        metric: name of the metric.
        defaults: what the task is distilled with.
        group_names: names of the groups.
        views: number of stored views of each training image, see :mod:`kd_env.tasks.views`.
    """
    splits, notes = four_splits(name, available, sources, class_names)
    if views != 1:
        count, splits = len(splits["train"]), {**splits, "train": with_views(splits["train"], views, name)}
        notes.append(f"train holds {views} views of each of {count:,} images: moved by up to an eighth of the side, half of them mirrored")
    return Task(
        name=name,
        kind="image",
        train=splits["train"],
        reward=splits["reward"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=tuple(class_names),
        group_names=tuple(group_names),
        metric=metric,
        notes=(*notes, *metric_notes(metric, list(class_names), splits["train"].labels)),
        defaults=defaults,
    )


def in_unit_range(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 images as float32 in [0, 1]."""
    return (pixels / np.float32(255)).astype(np.float32, copy=False)


def from_hub(task: str, repository: str, image: str, labels: Sequence[str], splits: Mapping[str, str]) -> dict[str, Any]:
    """Return a published set from the hub: images ``[N, 3, H, W]`` and label columns by split, and the names of the classes by column.

    Args:
        task: name of the task, for the error message.
        repository: id of the data set.
        image: column of the images.
        labels: columns of the labels.
        splits: names of the splits on the hub by their names here.

    Raises:
        InputError: the set cannot be loaded.
    """
    import logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a failure is reported once, below
    try:
        from datasets import load_dataset

        parts = {role: load_dataset(repository, split=split) for role, split in splits.items()}
        content: dict[str, Any] = {
            role: (
                np.stack([np.asarray(picture.convert("RGB")) for picture in part[image]]).transpose(0, 3, 1, 2),
                *(np.array(part[column], dtype=np.int64) for column in labels),
            )
            for role, part in parts.items()
        }
        content["names"] = [list(parts["train"].features[column].names) for column in labels]
    except Exception as error:  # the hub, its cache and the network fail in many ways
        raise InputError(
            f"task {task!r}: {repository} cannot be loaded from the hub ({type(error).__name__}: {str(error)[:120]}); "
            f"name a folder of its published files, as --data-dir PATH or {task}(data_dir=PATH)"
        ) from None
    return content
