"""Actions: what an agent says, and the teacher weights it means.

In: ``rows`` decisions over K teachers. Out: weights ``[rows, K]``, each row on the simplex, or all zero where no teacher was selected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from kd_env.errors import InputError
from kd_env.settings import Action

SHARPNESS = 10.0
"""``weights`` are softmax(10 a): over [-1, 1] a plain softmax could not favour one teacher of four beyond .71."""


def space(kind: Action, num_teachers: int, rows: int = 1) -> spaces.Space[Any]:
    """The space of ``rows`` decisions taken in one step; of a single slot when ``rows`` is 1."""
    if kind == "subset":
        return spaces.MultiBinary(rows * num_teachers)
    if kind == "one":
        return spaces.Discrete(num_teachers) if rows == 1 else spaces.MultiDiscrete([num_teachers] * rows)
    return spaces.Box(-1.0, 1.0, (rows * num_teachers,), np.float32)


def to_weights(kind: Action, actions: np.ndarray, num_teachers: int, rows: int) -> np.ndarray:
    """Actions of ``rows`` decisions -> weights ``[rows, K]``, float32.

    Raises:
        InputError: the actions are not in the space.
    """
    given = np.asarray(actions)
    size = rows if kind == "one" else rows * num_teachers
    if given.size != size:
        raise InputError(
            f"action {kind!r}: expected {size} numbers for {rows} decisions over {num_teachers} teachers, got shape {given.shape}"
        )
    if given.ndim > 1 and given.shape != (rows, size // rows):
        raise InputError(f"action {kind!r}: expected shape ({rows}, {size // rows}) or ({size},), got {given.shape}")
    if not np.isfinite(given).all():
        raise InputError(f"action {kind!r}: holds NaN or infinite numbers")
    if kind == "one":
        chosen = given.reshape(rows)
        if not np.isin(chosen, np.arange(num_teachers)).all():
            raise InputError(f"action 'one': expected teachers 0..{num_teachers - 1}, got {chosen}")
        one_hot: np.ndarray = np.eye(num_teachers, dtype=np.float32)[chosen.astype(np.int64)]
        return one_hot
    rowwise = given.reshape(rows, num_teachers).astype(np.float32)
    if kind == "subset":
        if not np.isin(rowwise, (0.0, 1.0)).all():
            raise InputError("action 'subset': expected zeros and ones")
        shared: np.ndarray = rowwise / np.maximum(rowwise.sum(1, keepdims=True), 1.0)
        return shared
    if (np.abs(rowwise) > 1.0).any():
        raise InputError("action 'weights': expected numbers in [-1, 1]")
    sharp = np.exp(SHARPNESS * (rowwise - rowwise.max(1, keepdims=True)))
    weights: np.ndarray = sharp / sharp.sum(1, keepdims=True)
    return weights


def from_weights(weights: np.ndarray) -> np.ndarray:
    """The ``weights`` action ``[rows, K]`` that means ``weights``; shares below exp(-20) of the largest become exp(-20) of it."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights / weights.max(axis=1, keepdims=True))
    action: np.ndarray = np.clip(1.0 + logs / SHARPNESS, -1.0, 1.0).astype(np.float32)
    return action
