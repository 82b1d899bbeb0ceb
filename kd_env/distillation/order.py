"""Order the training examples of a student. In: a seed and an update. Out: the B rows of its mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from kd_env.distillation.data import EncodedTask
from kd_env.distillation.settings import DistillationSettings
from kd_env.errors import InputError
from kd_env.models.encode import text_lengths
from kd_env.student.epoch_order import epoch_order, length_order

NextRows = Callable[[int, int], np.ndarray]
"""Function of a student's seed and its updates so far that returns the rows of its next mini-batch, ``[B]``."""


def make_order(data: EncodedTask, settings: DistillationSettings) -> NextRows:
    """Return the function that orders the training rows: texts of similar length together if padding can be cut. Recent epochs are cached.

    Raises:
        InputError: the task has fewer training examples than one mini-batch.
    """
    size, batch_size, num_students = len(data.labels["train"]), settings.batch_size, settings.num_students
    if size < batch_size:
        raise InputError(f"batch_size={batch_size} is more than the {size} training examples of task {data.task.name!r}")
    lengths = text_lengths(data.inputs["train"])
    order = partial(epoch_order, size=size) if lengths is None else partial(length_order, batch_size=batch_size, lengths=lengths)
    cached = lru_cache(maxsize=2 * num_students)(order)  # two epochs per student

    def next_rows(seed: int, update: int) -> np.ndarray:
        epoch, position = divmod(update, size // batch_size)
        return cached(seed, epoch)[position * batch_size : (position + 1) * batch_size].copy()

    return next_rows
