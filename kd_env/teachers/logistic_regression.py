"""Fit multinomial logistic regression with a ridge penalty: a linear classifier of fixed features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

RIDGE = 1e-3
"""Penalty of the squared weights on standardised features: the optimum is unique, and finite where the classes can be separated."""


def fit_classifier(features: Tensor, labels: Tensor, num_classes: int, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Minimise ``mean CE(W x~ + b, y) + ridge / 2 |W|^2`` over standardised features ``x~`` by L-BFGS, from zero; no randomness.

    Args:
        features: ``[N, D]``, float64.
        labels: ``[N]``.
        num_classes: C.
        ridge: weight of the penalty.

    Returns:
        Weight ``[C, D]`` and bias ``[C]`` for the features as they are.
    """
    mean, scale = features.mean(0), features.std(0, correction=0)
    scale = torch.where(scale > 0.0, scale, 1.0)
    standardised = (features - mean) / scale
    weight = features.new_zeros(num_classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=100, history_size=20, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(standardised @ weight.T + bias, labels) + 0.5 * ridge * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    unscaled_weight = weight.detach() / scale
    return unscaled_weight, bias.detach() - unscaled_weight @ mean
