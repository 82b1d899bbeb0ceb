"""Order the training examples of a student. In: a seed and an update. Out: the positions of the B examples of its mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from kd_env.distillation.data import EncodedTask
from kd_env.distillation.settings import DistillationSettings
from kd_env.errors import InputError
from kd_env.models.encode import text_lengths
from kd_env.student.epoch_order import epoch_order, length_order

NextPositions = Callable[[int, int], np.ndarray]
"""Function of a student's seed and its updates so far that returns the positions of the examples of its next mini-batch, ``[B]``."""


def make_order(data: EncodedTask, settings: DistillationSettings) -> NextPositions:
    """Return the function that orders the training examples: texts of similar length together if padding can be cut. It caches epochs.

    Raises:
        InputError: the task has fewer training examples than one mini-batch.
    """
    size, batch_size, num_students = len(data.labels["train"]), settings.batch_size, settings.num_students
    if size < batch_size:
        raise InputError(f"batch_size={batch_size} is more than the {size} training examples of task {data.task.name!r}")
    lengths = text_lengths(data.inputs["train"])
    order = partial(epoch_order, size=size) if lengths is None else partial(length_order, batch_size=batch_size, lengths=lengths)
    cached = lru_cache(maxsize=2 * num_students)(order)  # two epochs per student

    def next_positions(seed: int, update: int) -> np.ndarray:
        epoch, number = divmod(update, size // batch_size)
        return cached(seed, epoch)[number * batch_size : (number + 1) * batch_size].copy()

    return next_positions
