"""Compute optimal transport between two sets of classes with entropy regularisation (Cuturi 2013, arXiv 1306.0895)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-9
"""Largest error of a marginal at which the iterations end."""
MAX_STEPS = 10_000


class Transport(NamedTuple):
    """A transport between classes.

    Attributes:
        plan: mass that goes from each row to each column, ``[R, C]``, float64; it sums to 1.
        cost: sum of mass times cost.
    """

    plan: Tensor
    cost: float


def transport(cost: Tensor, rows: Tensor, columns: Tensor, epsilon: float = 0.05) -> Transport:
    """Return ``argmin_T <T, cost> - epsilon H(T)`` over plans with the marginals ``rows`` and ``columns``, by Sinkhorn's iterations.

    The iterations are on logarithms, so a small ``epsilon`` does not underflow. A row without mass sends its (zero) mass anywhere.

    Args:
        cost: cost of a unit of mass from a row to a column, ``[R, C]``.
        rows: mass of the rows, ``[R]``; it is scaled to sum to 1.
        columns: mass of the columns, ``[C]``, likewise.
        epsilon: weight of the entropy; the plan is the exact one in the limit of 0, and the product of the marginals in that of infinity.
    """
    kernel = -cost.double() / epsilon
    rows, columns = (masses.double() / masses.double().sum() for masses in (rows, columns))
    log_rows, log_columns = rows.log(), columns.log()
    left, right = torch.zeros_like(log_rows), torch.zeros_like(log_columns)
    for _ in range(MAX_STEPS):
        left = log_rows - torch.logsumexp(kernel + right, 1)
        right = log_columns - torch.logsumexp(kernel + left[:, None], 0)
        plan = (left[:, None] + kernel + right).exp()
        if (plan.sum(1) - rows).abs().max() < TOLERANCE:
            break
    return Transport(plan, float((plan * cost.double()).sum()))
