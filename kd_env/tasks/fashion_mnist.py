"""``fashion-mnist``: grey images of clothing, ten classes; read from a folder with the four published ``idx`` files, gzipped.

Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747: 60,000 train and 10,000 test images of 28 x 28.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from kd_env.errors import InputError
from kd_env.paths import require_file
from kd_env.tasks.folders import require_folder
from kd_env.tasks.published_images import PERCEPTRON, image_task, in_unit_range
from kd_env.tasks.task import Split, Task, task_name

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def load(data_dir: str | None = None, metric: str = "accuracy", views: int = 1) -> Task:
    """Load the folder: test as published, reward and validation carved from train, with some stored views of each training image.

    Raises:
        InputError: a file is missing or damaged, or images and labels differ in number.
    """
    return from_idx("fashion-mnist", data_dir, metric, CLASSES, views)


def from_idx(task: str, data_dir: str | None, metric: str, class_names: tuple[str, ...], views: int = 1) -> Task:
    """Load a folder of the four files as the task of that name; :func:`load` describes the errors."""
    folder = require_folder(data_dir, task)
    available = {"train": _split(folder, "train", len(class_names)), "test": _split(folder, "t10k", len(class_names))}
    name = task_name(task, {"metric": metric, "views": views}, {"metric": "accuracy", "views": 1})
    return image_task(name, available, {"train": "train-*", "test": "t10k-*"}, class_names, metric, PERCEPTRON, views=views)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Return the bytes of a gzipped idx file as a uint8 array with ``axes`` axes.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    require_file(path)
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); download the file again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); the folder must hold the four published .gz files") from None
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist()) if len(content) >= start else ()
    if content[:4] != bytes([0, 0, 8, axes]) or math.prod(shape) != len(content) - start:
        raise InputError(f"{path}: not an idx file of bytes with {axes} axes, or cut off; download the file again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _split(folder: Path, part: str, num_classes: int) -> Split:
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3)  # [N, 28, 28]
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)  # [N]
    if len(images) != len(labels):
        raise InputError(f"{folder}: {len(images)} images and {len(labels)} labels of {part}; download the files again")
    if labels.max(initial=0) >= num_classes:
        row = int(np.flatnonzero(labels >= num_classes)[0])
        raise InputError(
            f"{folder}/{part}-labels-idx1-ubyte.gz: label {labels[row]} of image {row}, expected 0..{num_classes - 1}; "
            "download the file again"
        )
    return Split(in_unit_range(images[:, None]), labels.astype(np.int64))
