"""``lr_ensemble``: fixed weights by logistic regression on train, RL-KD's LR-Ensemble (Yuan et al. 2021, arXiv 2012.06048).

The regression of y on the teachers' outputs has one coefficient per teacher: ``P(y = c) = softmax_c(sum_k a_k p_k(c) + b_c)``, p_k at
temperature 1. The weights are the positive part of a divided by its sum, uniform if no coefficient is positive. Coefficients shared by the
classes, the ridge and the positive part are our reading: the paper states the regression only. Teachers were trained on the same examples,
so the regression favours those that memorised them.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy

from baselines.rule import BaseRule
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace

MAX_ROWS = 10_000
"""Training examples to fit on at most; if there are more, this many are drawn by the seed."""


def weights(teacher_logits: Tensor, labels: Tensor, ridge: float = 1e-3) -> Tensor:
    """Return weights, ``[n, K, C]``, ``[n]`` -> ``[K]``, on the simplex; 1 at K = 1."""
    positive = coefficients(teacher_logits, labels, ridge)[0].clamp_min(0.0)
    positive = positive if bool(positive.any()) else torch.ones_like(positive)
    return (positive / positive.sum()).to(teacher_logits.dtype)


def coefficients(teacher_logits: Tensor, labels: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Return coefficients ``[K]`` and intercepts ``[C]`` that minimise ``mean CE + ridge / 2 (|a|^2 + |b|^2)``, by L-BFGS in float64."""
    probabilities = teacher_logits.detach().cpu().double().softmax(2)  # [n, K, C]
    targets, count = labels.cpu(), probabilities.shape[1]

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(point).requires_grad_()
        scores = torch.einsum("nkc,k->nc", probabilities, parameters[:count]) + parameters[count:]
        loss = cross_entropy(scores, targets) + 0.5 * ridge * parameters.square().sum()
        (slope,) = torch.autograd.grad(loss, parameters)
        return float(loss.detach()), slope.numpy()

    options = {"maxiter": 1000, "ftol": 0.0, "gtol": 1e-8}  # stops by the slope alone
    fitted = minimize(objective, np.zeros(count + probabilities.shape[2]), jac=True, method="L-BFGS-B", options=options)
    optimum = torch.from_numpy(fitted.x)
    return optimum[:count], optimum[count:]


class LREnsemble(BaseRule):
    """Fits once, before the first update, on the training labels."""

    access = "train labels"
    learns_from = "train labels, once"
    paper = "Yuan et al. 2021, arXiv 2012.06048"
    search_space: SearchSpace = {"ridge": Range(1e-5, 1e-1, log=True)}

    def __init__(self, context: PolicyContext, seed: int = 0, ridge: float = 1e-3) -> None:
        """Fit on at most 10,000 training examples, drawn by ``seed``."""
        spec.numbers("lr_ensemble", above=0, ridge=ridge)  # at 0, coefficients of perfect teachers are infinite
        super().__init__(context, seed)
        rows = context.labelled_train_positions
        if len(rows) > MAX_ROWS:
            rows = np.sort(self.rng.choice(rows, MAX_ROWS, replace=False))
        examples = context.train_examples(rows)
        self.teacher_weights = weights(examples.teacher_logits, examples.known_labels(), ridge)  # [K]

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the same weights for every instance."""
        return self.teacher_weights.expand(batch.num_rows, -1)
