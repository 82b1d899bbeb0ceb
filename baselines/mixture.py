"""Fit the weights of a mixture of teachers to labels. In: teachers' logits and labels. Out: parameters of the weights.

A student that is taught with weights w_k(x) learns the mixture sum_k w_k(x) p_k(y|x). So the weights maximise its likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

LEAST_PROBABILITY = 1e-4
LBFGS_STEPS = 60


def log_likelihoods(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``log max(p_k(y|x), 1e-4)``, ``[n, K]``, of ``teacher_logits [n, K, C]`` and class numbers y, ``labels [n]``."""
    index = labels[:, None, None].expand(-1, teacher_logits.shape[1], 1)
    log_likelihood = teacher_logits.double().log_softmax(2).gather(2, index).squeeze(2).float()
    return log_likelihood.clamp_min(math.log(LEAST_PROBABILITY))


def fit_mixture(parameters: Iterable[Tensor], log_weights: Callable[[], Tensor], log_likelihood: Tensor, ridge: float) -> None:
    """Minimise ``-mean log sum_k w_k p_k(y) + ridge / 2 |parameters|^2`` by L-BFGS.

    Args:
        parameters: what is fitted, in place.
        log_weights: returns log w_k for the present parameters, ``[n, K]``.
        log_likelihood: log p_k(y), ``[n, K]``.
        ridge: weight of the penalty.
    """
    fitted = list(parameters)
    optimizer = torch.optim.LBFGS(fitted, max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -(log_weights() + log_likelihood).logsumexp(1).mean()
        loss = loss + 0.5 * ridge * torch.stack([parameter.square().sum() for parameter in fitted]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
