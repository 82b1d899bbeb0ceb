"""A linear classifier of fixed features: multinomial logistic regression with a ridge. In: features, labels. Out: weight and bias."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

RIDGE = 1e-3
"""Of the squared weights on standardised features, beside the mean cross-entropy: there is one optimum, finite where the classes part."""


def classifier(features: Tensor, labels: Tensor, num_classes: int, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Minimise ``mean CE(W x~ + b, y) + ridge / 2 |W|^2`` over standardised features ``x~`` by L-BFGS, from zero; no randomness.

    Args:
        features: ``[N, D]``, float64.
        labels: ``[N]``.

    Returns:
        Weight ``[C, D]`` and bias ``[C]`` for the features as they are.
    """
    mean, scale = features.mean(0), features.std(0, correction=0)
    scale = torch.where(scale > 0.0, scale, 1.0)
    standard = (features - mean) / scale
    weight = features.new_zeros(num_classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=100, history_size=20, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(standard @ weight.T + bias, labels) + 0.5 * ridge * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    own = weight.detach() / scale
    return own, bias.detach() - own @ mean
