"""The order in which a student sees the training examples. In: a seed and an epoch. Out: rows; each mini-batch takes the next ones."""

from __future__ import annotations

import numpy as np

from kd_env.randomness import stream

WINDOW = 50
"""Mini-batches whose examples are put in order of length together, at most; never more than a quarter of an epoch."""


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of the training rows in one epoch of the student with ``seed``."""
    return stream(seed, "order", epoch).permutation(size)


def length_order(seed: int, epoch: int, batch_size: int, lengths: np.ndarray) -> np.ndarray:
    """The same with texts of like length in one mini-batch, so that little of it is padding; the rest of an epoch is left out.

    The shuffled epoch is cut into windows, each window is sorted by length and cut into mini-batches, and those are shuffled.

    Args:
        lengths: tokens of each training example ``[N]``.
    """
    order = epoch_order(seed, epoch, len(lengths))
    batches = len(order) // batch_size
    window = min(WINDOW, max(batches // 4, 1)) * batch_size
    parts = [order[start : start + window] for start in range(0, batches * batch_size, window)]
    ordered = np.concatenate([part[lengths[part].argsort(kind="stable")] for part in parts])
    shuffled = stream(seed, "batches", epoch).permutation(batches)
    in_order: np.ndarray = ordered[: batches * batch_size].reshape(batches, batch_size)[shuffled].ravel()
    return in_order
