"""Compute norms and directions of vectors with gradients that are finite at zero. In: ``[..., D]``. Out: ``[..., 1]`` or ``[..., D]``."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_SQUARE = 1e-24
"""Vectors with a smaller squared norm have no direction. At this value, float32 can still represent the derivative of the norm."""


def norm(vectors: Tensor) -> Tensor:
    """Return the Euclidean norm over the last axis, ``[..., D]`` -> ``[..., 1]``. At zero its gradient is zero, not NaN."""
    squares = vectors.square().sum(-1, keepdim=True)
    zero = squares < MIN_SQUARE
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())


def unit(vectors: Tensor) -> Tensor:
    """Return vectors ``[..., D]`` divided by their norm. Vectors of norm zero are not changed."""
    length = norm(vectors)
    return vectors / torch.where(length == 0.0, 1.0, length)
