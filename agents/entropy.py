"""The entropy of selection probabilities, which records hold beside that of the weights."""

from __future__ import annotations

import numpy as np


def normalized_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of distributions over K teachers over ln K, ``[rows, K]`` -> ``[rows]``, in [0, 1]; 0 where K is 1."""
    entropy: np.ndarray = _entropy(probabilities).sum(1) / np.log(max(probabilities.shape[1], 2))
    return entropy


def bernoulli_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the mean entropy of K independent selections over ln 2, ``[rows, K]`` -> ``[rows]``, in [0, 1]."""
    mean: np.ndarray = (_entropy(probabilities) + _entropy(1.0 - probabilities)).mean(1) / np.log(2.0)
    return mean


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    p = np.asarray(probabilities, dtype=np.float64)
    terms: np.ndarray = -p * np.log(np.where(p > 0.0, p, 1.0))
    return terms
