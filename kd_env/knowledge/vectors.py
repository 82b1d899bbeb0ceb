"""Norms and directions of vectors whose gradients are finite at zero. In: ``[..., D]``. Out: ``[..., 1]``, or ``[..., D]``."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_SQUARE = 1e-24
"""Vectors of a smaller squared norm have no direction; float32 still holds the derivative of the norm at this one."""


def norm(vectors: Tensor) -> Tensor:
    """Compute the Euclidean norm over the last axis, kept, ``[..., D]`` -> ``[..., 1]``; at zero its gradient is zero and not NaN."""
    squares = vectors.square().sum(-1, keepdim=True)
    zero = squares < SMALLEST_SQUARE
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())


def unit(vectors: Tensor) -> Tensor:
    """Divide vectors ``[..., D]`` by their norm; those of norm zero stay as they are, so that their gradient is small."""
    length = norm(vectors)
    return vectors / torch.where(length == 0.0, 1.0, length)
