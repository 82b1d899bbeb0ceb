"""Fit the weights of a mixture of teachers to labels. In: teachers' logits and labels. Out: parameters of the weights.

A student that is taught with weights w_k(x) learns the mixture sum_k w_k(x) p_k(y|x). So the weights maximise its likelihood. There are two
forms: :class:`MixtureLikelihood` takes the mixture as the prediction, :class:`TaughtMixtureLikelihood` a power of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

MIN_PROBABILITY = 1e-4
LBFGS_STEPS = 60
EM_STEPS = 300
POWER_RIDGE = 1e-2
SHARES_RIDGE = 1e-3


def log_likelihoods(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``log max(p_k(y|x), 1e-4)``, ``[n, K]``, of ``teacher_logits [n, K, C]`` and class numbers y, ``labels [n]``."""
    index = labels[:, None, None].expand(-1, teacher_logits.shape[1], 1)
    log_likelihood = teacher_logits.double().log_softmax(2).gather(2, index).squeeze(2).float()
    return log_likelihood.clamp_min(math.log(MIN_PROBABILITY))


def fit_mixture(parameters: Iterable[Tensor], log_weights: Callable[[], Tensor], log_likelihood: Tensor, ridge: float) -> None:
    """Minimise ``-mean log sum_k w_k p_k(y) + ridge / 2 |parameters|^2`` by L-BFGS.

    Args:
        parameters: what is fitted, in place.
        log_weights: returns log w_k for the present parameters, ``[n, K]``.
        log_likelihood: log p_k(y), ``[n, K]``.
        ridge: weight of the penalty.
    """
    fitted = list(parameters)
    minimise(fitted, lambda: -(log_weights() + log_likelihood).logsumexp(1).mean() + 0.5 * ridge * _sum_of_squares(fitted))


def fit_shares(likelihood: Tensor) -> Tensor:
    """Return the shares ``[R]`` of base models that maximise their mixture's likelihood, by EM from equal ones; ``likelihood [R, n]``."""
    shares = torch.full((len(likelihood),), 1.0 / len(likelihood))
    for _ in range(EM_STEPS):
        joint = shares[:, None] * likelihood
        shares = (joint / joint.sum(0)).mean(1)
    return shares


@dataclass(frozen=True)
class MixtureLikelihood:
    """The likelihood ``sum_k w_k p_k(y|x)`` of labelled examples, at temperature 1 (stacked density estimation, Smyth and Wolpert 1999)."""

    log_likelihood: Tensor  # [n, K], of the label

    def take(self, rows: Tensor) -> MixtureLikelihood:
        """Return the objective on some of the examples."""
        return MixtureLikelihood(self.log_likelihood[rows])

    def fit(self, parameters: Iterable[Tensor], log_weights: Callable[[], Tensor], ridge: float) -> None:
        """Fit ``parameters`` in place, see :func:`fit_mixture`."""
        fit_mixture(parameters, log_weights, self.log_likelihood, ridge)

    def shares(self, weights: Tensor) -> Tensor:
        """Return the shares ``[R]`` of base models with ``weights [R, n, K]``."""
        return fit_shares((weights * self.log_likelihood.exp()).sum(2))


@dataclass(frozen=True)
class TaughtMixtureLikelihood:
    """The likelihood of the mixture as it is taught: of teachers at the distillation temperature, and raised to a fitted power.

    The classes have probabilities ``(sum_k w_k(x) p_k(c|x)) ** power``, normalised over c. The student may become more or less certain than
    what teaches it; what matters is which class is the most likely one. Without the power, weights would make up for soft or overconfident
    teachers. ``log(power)`` has a penalty of ``POWER_RIDGE / 2``, the logits of the shares one of ``SHARES_RIDGE / 2`` on their squares.
    """

    log_probabilities: Tensor  # [n, K, C], at the temperature of distillation
    labels: Tensor  # [n]

    def take(self, rows: Tensor) -> TaughtMixtureLikelihood:
        """Return the objective on some of the examples."""
        return TaughtMixtureLikelihood(self.log_probabilities[rows], self.labels[rows])

    def loss(self, log_weights: Tensor, log_power: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of the labels, for ``log_weights [n, K]``."""
        log_mixture = (log_weights[:, :, None] + self.log_probabilities).logsumexp(1)  # [n, C]
        return cross_entropy(log_power.exp() * log_mixture, self.labels)

    def fit(self, parameters: Iterable[Tensor], log_weights: Callable[[], Tensor], ridge: float) -> None:
        """Fit ``parameters`` and the power by L-BFGS, the former in place and with a penalty of ``ridge / 2`` on their squares."""
        fitted, log_power = list(parameters), torch.zeros((), requires_grad=True)

        def objective() -> Tensor:
            penalty = 0.5 * ridge * _sum_of_squares(fitted) + 0.5 * POWER_RIDGE * log_power.square()
            return self.loss(log_weights(), log_power) + penalty

        minimise([*fitted, log_power], objective)

    def shares(self, weights: Tensor) -> Tensor:
        """Return the shares ``[R]`` of base models with ``weights [R, n, K]``, from equal ones."""
        logits, tiny = torch.zeros(len(weights), requires_grad=True), torch.finfo(weights.dtype).tiny
        self.fit([logits], lambda: torch.einsum("r,rnk->nk", logits.softmax(0), weights).clamp_min(tiny).log(), SHARES_RIDGE)
        return logits.detach().softmax(0)


def density(teacher_logits: Tensor, labels: Tensor) -> MixtureLikelihood:
    """Return the objective for ``teacher_logits [n, K, C]`` and class numbers ``labels [n]``."""
    return MixtureLikelihood(log_likelihoods(teacher_logits, labels))


def taught(teacher_logits: Tensor, labels: Tensor, temperature: float) -> TaughtMixtureLikelihood:
    """Return the objective for ``teacher_logits [n, K, C]``, class numbers ``labels [n]`` and the temperature of distillation."""
    log_probabilities = (teacher_logits.double() / temperature).log_softmax(2).float().clamp_min(math.log(MIN_PROBABILITY))
    return TaughtMixtureLikelihood(log_probabilities, labels)


def _sum_of_squares(parameters: Iterable[Tensor]) -> Tensor:
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()


def minimise(parameters: list[Tensor], objective: Callable[[], Tensor]) -> None:
    """Minimise ``objective()`` over ``parameters`` by L-BFGS, in place.

    Where it diverges, as it can in float32, the parameters with the smallest loss so far remain.
    """
    optimizer = torch.optim.LBFGS(parameters, max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")
    smallest, best = math.inf, [parameter.detach().clone() for parameter in parameters]

    def closure() -> Tensor:
        nonlocal smallest
        optimizer.zero_grad()
        loss = objective()
        if not loss.isfinite():
            raise _DivergedError
        if loss.item() < smallest:
            smallest = loss.item()
            best[:] = [parameter.detach().clone() for parameter in parameters]
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    try:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    except _DivergedError:
        with torch.no_grad():
            for parameter, value in zip(parameters, best, strict=True):
                parameter.copy_(value)


class _DivergedError(Exception):
    """The loss is not a finite number."""
