"""The gradient of a final loss through several SGD steps, with respect to parameters of the losses of these steps.

In: the objectives of the steps, a final objective, parameters to start from, and *meta* parameters that the objectives depend on. Out: the
final objective's value, and its exact gradient by the meta parameters through all steps (second order, by differentiating the gradients
themselves). The parameters are not changed: the steps are taken on copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_env import spec

Objective = Callable[[Sequence[Tensor]], Tensor]
"""A function of parameters that returns a scalar, twice differentiable."""


def meta_gradient(
    steps: Sequence[Objective], final_objective: Objective, parameters: Sequence[Tensor], meta: Sequence[Tensor], descent: Descent
) -> tuple[Tensor, list[Tensor]]:
    """Return ``final_objective`` after a step on each of ``steps`` from ``parameters``, and its gradient by each of ``meta``."""
    loss = final_objective(descend(steps, parameters, descent))
    return loss.detach(), list(torch.autograd.grad(loss, list(meta), materialize_grads=True))


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent as in torch: ``g = grad + decay x``, ``v = momentum v + g`` from ``v = 0``, ``x = x - rate v``."""

    rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check that all numbers are at least 0."""
        spec.numbers("mmkd", least=0, inner_lr=self.rate, momentum=self.momentum, inner_weight_decay=self.weight_decay)


def descend(steps: Sequence[Objective], parameters: Sequence[Tensor], descent: Descent) -> list[Tensor]:
    """Return the parameters after one step on each objective in turn, differentiable in all that the objectives depend on."""
    current = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    velocity: list[Tensor] = []
    for objective in steps:
        slopes = torch.autograd.grad(objective(current), current, create_graph=True, materialize_grads=True)
        gradient = [slope + descent.weight_decay * parameter for slope, parameter in zip(slopes, current, strict=True)]
        velocity = [descent.momentum * old + new for old, new in zip(velocity, gradient, strict=True)] if velocity else gradient
        current = [parameter - descent.rate * speed for parameter, speed in zip(current, velocity, strict=True)]
    return current
