"""Put credit on a common scale. In: credit of each instance. Out: the same, normalised over the teachers or scaled to size 1."""

from __future__ import annotations

import torch
from torch import Tensor


def normalize(credit: Tensor) -> Tensor:
    """Return credit ``[rows, K]``, centred and scaled over the teachers of each instance; 0 if all are equal.

    Without it, teachers that are far from the student would dominate, since ``|r_bk|`` grows with ``KL_bk``.
    """
    centred = credit - credit.mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True).sqrt()
    rounding = 4 * torch.finfo(credit.dtype).eps * credit.abs().amax(1, keepdim=True)
    return torch.where(spread > rounding, centred / spread.clamp_min(torch.finfo(credit.dtype).tiny), 0.0)


def scale(credit: Tensor) -> Tensor:
    """Return credit ``[rows, ...]`` with each row scaled to a root mean square of 1. Signs and zeros do not change."""
    size = credit.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (credit.ndim - 1))
    return credit / torch.where(size > 0.0, size, 1.0)
