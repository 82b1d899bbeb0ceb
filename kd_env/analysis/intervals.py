"""Compute the parts of Student's t interval of a mean. In: values, or a probability. Out: numbers."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from scipy import special


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Return the standard error of the mean of at least two values."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


@functools.cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution."""
    return float(special.stdtrit(degrees, probability))
