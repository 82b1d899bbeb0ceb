"""``mnist``: grey images of handwritten digits, ten classes; read from a folder with the four published ``idx`` files, gzipped.

LeCun, Bottou, Bengio and Haffner, 1998: 60,000 train and 10,000 test images of 28 x 28.
"""

from __future__ import annotations

from kd_env.tasks.fashion_mnist import from_idx
from kd_env.tasks.task import Task


def load(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Load the folder: test as published, reward and validation carved from train.

    Raises:
        InputError: a file is missing or damaged, or images and labels differ in number.
    """
    return from_idx("mnist", data_dir, metric, tuple(map(str, range(10))))
