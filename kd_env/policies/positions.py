"""Check positions in the reward split that a policy names. In: positions, and those whose labels it has. Out: checked positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from kd_env.errors import InputError


def granted_positions(positions: Any, granted: np.ndarray, policy: str, method: str) -> np.ndarray:
    """Return ``positions`` as an array of integers.

    Args:
        positions: positions of any shape.
        granted: positions whose labels the policy has.
        policy: name of the policy, for the error message.
        method: what the policy calls, for the error message.

    Raises:
        InputError: they are no integers, or the policy does not have the labels of some.
    """
    array = np.array(positions)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"policy {policy!r}: {method} got an array of {array.dtype}; expected positions, whole numbers")
    if not np.isin(array, granted).all():
        raise InputError(f"policy {policy!r}: {method} got positions that are not in context.reward_positions; use some of those")
    return array.astype(np.int64)
