"""Order the training examples of an epoch: at random, or with texts of similar length in one mini-batch, which reduces padding."""

from __future__ import annotations

import numpy as np

from kd_env.randomness import stream

WINDOW = 50
"""Largest number of mini-batches that are sorted by length together. A window is also at most a quarter of an epoch."""


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return a random order of the training rows, ``[size]``, which depends on ``seed`` and ``epoch``."""
    return stream(seed, "order", epoch).permutation(size)


def length_order(seed: int, epoch: int, batch_size: int, lengths: np.ndarray) -> np.ndarray:
    """Return an order that puts texts of similar length into the same mini-batch, to reduce padding.

    The shuffled epoch is cut into windows. Each window is sorted by length and cut into mini-batches. The mini-batches are then shuffled.
    Rows that do not fill a mini-batch are left out. They are random, or the longest of the last window if it is shorter than the others.

    Args:
        seed: seed of the student.
        epoch: number of the epoch, from 0.
        batch_size: examples in one mini-batch, B.
        lengths: number of tokens of each training example, ``[N]``.
    """
    order = epoch_order(seed, epoch, len(lengths))
    batches = len(order) // batch_size
    window = min(WINDOW, max(batches // 4, 1)) * batch_size
    windows = [order[start : start + window] for start in range(0, batches * batch_size, window)]
    by_length = np.concatenate([rows[lengths[rows].argsort(kind="stable")] for rows in windows])
    shuffled = stream(seed, "batches", epoch).permutation(batches)
    rows: np.ndarray = by_length[: batches * batch_size].reshape(batches, batch_size)[shuffled].ravel()
    return rows
