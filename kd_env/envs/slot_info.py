"""Build the ``info`` of slots: arrays over the slots, each with a mask ``_key`` of the slots that have a value, as in Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def masked(info: Mapping[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Return ``info`` with the same mask ``[num_envs]`` for all keys."""
    return {**info, **{f"_{name}": mask.copy() for name in info}}


def of_slots(info: Mapping[str, Any], slots: np.ndarray) -> dict[str, Any]:
    """Return ``info`` for the slots in the mask ``slots``. Keys that none of them has are left out."""
    names = [name for name in info if not name.startswith("_") and (info[f"_{name}"] & slots).any()]
    values = {name: of_slots(info[name], slots) if isinstance(info[name], dict) else info[name] for name in names}
    return {**values, **{f"_{name}": info[f"_{name}"] & slots for name in names}}
