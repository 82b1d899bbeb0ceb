"""Fit a temperature for each teacher on labelled examples, so that the equal mixture of the teachers predicts the labels best."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from torch import Tensor

MAX_LOG_TEMPERATURE = 4.0


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the temperature T_k of each teacher, by which its logits are divided, ``[K]``, float64.

    With one teacher this is temperature scaling (Guo et al. 2017, arXiv 1706.04599). With several, their equal mixture is calibrated: an
    example counts little for a teacher if others predict it better, so a domain expert stays certain in its domain. The objective is

        -sum_i log 1/K sum_k softmax(z_ik / T_k)[y_i] + 1/2 sum_k (log T_k)^2,    e^-4 <= T_k <= e^4

    The last term bounds T_k away from 0 if a teacher predicts all of the few labels correctly. The mixture and this term are ours.

    Args:
        logits: the teachers' logits z for n labelled examples, ``[n, K, C]``.
        labels: the labels y, ``[n]``.
    """
    logits = logits.astype(np.float64)
    label_logits = np.take_along_axis(logits, labels[:, None, None], axis=2)[:, :, 0]  # [n, K]

    def objective(log_temperatures: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = logits * np.exp(-log_temperatures)[:, None]
        advantage = (label_logits - (softmax(scaled, axis=2) * logits).sum(2)) * np.exp(-log_temperatures)  # [n, K]
        log_likelihood = label_logits * np.exp(-log_temperatures) - logsumexp(scaled, axis=2)
        value = -logsumexp(log_likelihood, axis=1).sum() + 0.5 * (log_temperatures**2).sum()
        return float(value), (softmax(log_likelihood, axis=1) * advantage).sum(0) + log_temperatures

    bounds = [(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)] * logits.shape[1]
    fitted = minimize(objective, np.zeros(logits.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    temperatures: np.ndarray = np.exp(fitted.x)
    return temperatures


def calibrated(logits: np.ndarray, temperatures: np.ndarray | None) -> Tensor:
    """Return logits ``[n, K, C]`` divided by ``temperatures`` (``[K]``, ``[n, K]``, or ``None`` for no division), in their dtype."""
    tensor = torch.from_numpy(logits)
    return tensor if temperatures is None else (tensor / torch.from_numpy(temperatures)[..., None]).to(tensor.dtype)
