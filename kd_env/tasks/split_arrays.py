"""Check the arrays of a split of a task that a user made: their kinds, shapes and types. In: a split. Out: nothing, or an error."""

from __future__ import annotations

from typing import Any

import numpy as np

from kd_env.errors import InputError


def require_arrays(place: str, split: Any, kind: str, train: Any) -> None:
    """Check that the arrays of ``split`` are what :class:`kd_env.tasks.Split` says.

    Args:
        place: names the task and the split, for the error message.
        kind: ``image`` or ``text``.
        train: the train split, whose examples the others are shaped like.

    Raises:
        InputError: an array is none, or has another type or shape.
    """
    if not all(hasattr(split, name) for name in ("inputs", "labels", "groups")):
        raise InputError(f"{place}: a {type(split).__name__}, expected a kd_env.tasks.Split")
    _require_numbers(f"{place}: labels", split.labels)
    if split.groups is not None:
        _require_numbers(f"{place}: groups", split.groups)
        if hasattr(split.inputs, "__len__") and len(split.inputs) == len(split.labels) != len(split.groups):
            raise InputError(f"{place}: {len(split.groups)} groups but {len(split.labels)} labels")
    inputs = split.inputs
    if not isinstance(inputs, np.ndarray):
        raise InputError(f"{place}: inputs are a {type(inputs).__name__}, expected a NumPy array; use np.stack, or np.array(..., object)")
    if kind == "image":
        if inputs.ndim != 4 or inputs.dtype != np.float32:
            expected = "float32 [N, channels, height, width]"
            raise InputError(f"{place}: images are {inputs.dtype} of shape {list(inputs.shape)}, expected {expected}")
    elif inputs.ndim not in (1, 2) or (inputs.ndim == 2 and inputs.shape[1] != 2) or not all(isinstance(text, str) for text in inputs.flat):
        raise InputError(f"{place}: texts are {inputs.dtype} of shape {list(inputs.shape)}, expected str [N], or [N, 2] of pairs")
    example, expected_example = inputs.shape[1:], np.shape(train.inputs)[1:]
    if example != expected_example:
        raise InputError(f"{place}: its examples have shape {list(example)}, those of train have {list(expected_example)}; make them equal")


def _require_numbers(place: str, values: Any) -> None:
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype != np.int64:
        shown = f"{values.dtype} of shape {list(values.shape)}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
        raise InputError(f"{place} are {shown}, expected int64 [N]; use np.asarray(..., dtype=np.int64)")
