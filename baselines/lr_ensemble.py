"""``lr_ensemble``: fixed weights by logistic regression on train, RL-KD's LR-Ensemble (Yuan et al. 2021, arXiv 2012.06048).

The regression of y on the teachers' outputs has one coefficient a teacher: ``P(y = c) = softmax_c(sum_k a_k p_k(c) + b_c)``, p_k at
temperature 1. The weights are the positive part of a over its sum, uniform if no coefficient is positive. That coefficients are shared by
the classes, the ridge and the positive part are our reading: the paper names the regression only. Teachers fitted on train are memorised
there, which flatters this rule's choice of them.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy

from baselines.rule import Rule
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext

MOST_ROWS = 10_000
"""Training examples at most; of more, so many are drawn by the seed."""


def weights(teacher_logits: Tensor, labels: Tensor, ridge: float = 1e-3) -> Tensor:
    """``[n, K, C]``, ``[n]`` -> ``[K]``, on the simplex; ones at K = 1."""
    positive = coefficients(teacher_logits, labels, ridge)[0].clamp_min(0.0)
    positive = positive if bool(positive.any()) else torch.ones_like(positive)
    return (positive / positive.sum()).to(teacher_logits.dtype)


def coefficients(teacher_logits: Tensor, labels: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Coefficients ``[K]`` and intercepts ``[C]`` that minimise ``mean CE + ridge / 2 (|a|^2 + |b|^2)``, by L-BFGS in float64."""
    said = teacher_logits.detach().cpu().double().softmax(2)  # [n, K, C]
    targets, count = labels.cpu(), said.shape[1]

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        found = torch.from_numpy(point).requires_grad_()
        scores = torch.einsum("nkc,k->nc", said, found[:count]) + found[count:]
        loss = cross_entropy(scores, targets) + 0.5 * ridge * found.square().sum()
        (slope,) = torch.autograd.grad(loss, found)
        return float(loss.detach()), slope.numpy()

    until = {"maxiter": 1000, "ftol": 0.0, "gtol": 1e-8}  # the slope says when it is done
    fitted = minimize(objective, np.zeros(count + said.shape[2]), jac=True, method="L-BFGS-B", options=until)
    found = torch.from_numpy(fitted.x)
    return found[:count], found[count:]


class LREnsemble(Rule):
    """Fits once, before the first update, on the training labels."""

    access = "train labels"
    learns_from = "train labels, once"
    paper = "Yuan et al. 2021, arXiv 2012.06048"

    def __init__(self, context: PolicyContext, seed: int = 0, ridge: float = 1e-3) -> None:
        """Fit on at most 10,000 training examples, drawn by ``seed``."""
        spec.numbers("lr_ensemble", above=0, ridge=ridge)  # without one, perfect teachers have infinite coefficients
        super().__init__(context, seed)
        rows = context.labelled_train_rows
        if len(rows) > MOST_ROWS:
            rows = np.sort(self.rng.choice(rows, MOST_ROWS, replace=False))
        examples = context.train_examples(rows)
        self.teacher_weights = weights(examples.teacher_logits, examples.known_labels(), ridge)  # [K]

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the same weights for every instance."""
        return self.teacher_weights.expand(batch.rows, -1)
