"""Compute statistics of scores over seeds. In: one-dimensional, finite samples, one number per seed. Out: numbers and intervals.

All functions are pure. The interval of fewer than two values is (nan, nan), because one seed does not show the spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from kd_env.analysis.intervals import standard_error, t_quantile
from kd_env.errors import InputError

FloatArray = npt.NDArray[np.float64]
RESAMPLES = 10_000
NO_INTERVAL = (math.nan, math.nan)


def iqm(x: npt.ArrayLike) -> float:
    """Return the interquartile mean: the mean without the lowest and the highest quarter (Agarwal et al. 2021, arXiv 2108.13264)."""
    values = np.sort(_sample(x, "x"))
    quarter = len(values) // 4
    return float(values[quarter : len(values) - quarter].mean())


def mean_interval(x: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval for the mean; (nan, nan) for fewer than two values."""
    values = _sample(x, "x")
    _check_level(level)
    if len(values) < 2:
        return NO_INTERVAL
    half = standard_error(values) * t_quantile((1 + level) / 2, len(values) - 1)
    mean = float(values.mean())
    return mean - half, mean + half


def bootstrap_interval(
    x: npt.ArrayLike, statistic: Callable[..., object] = np.mean, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of any statistic, from 10,000 resamples; (nan, nan) for fewer than two values.

    A statistic that takes `axis` is called once on all resamples, any other once per resample.
    """
    values = _sample(x, "x")
    _check_level(level)
    if len(values) < 2:
        return NO_INTERVAL
    from scipy import stats  # takes half a second to import, and a report does not need it

    result = stats.bootstrap(
        (values,), statistic, n_resamples=RESAMPLES, confidence_level=level, method="percentile", rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


class PairedDifference(NamedTuple):
    """Mean of x - y over paired seeds, its t interval, and the two-sided p value of the paired t test."""

    mean: float
    low: float
    high: float
    p: float


def paired_difference(x: npt.ArrayLike, y: npt.ArrayLike, level: float = 0.95) -> PairedDifference:
    """Return the mean difference of two policies over paired seeds, with interval and p; these are nan for fewer than two pairs."""
    difference = np.subtract(*_paired(x=x, y=y))
    low, high = mean_interval(difference, level)
    mean = float(difference.mean())
    if len(difference) < 2:
        p = math.nan
    elif low == high:  # all differences are equal: the t statistic is 0/0 or infinite
        p = 1.0 if mean == 0 else 0.0
    else:
        p = float(2 * special.stdtr(len(difference) - 1, -abs(mean) / standard_error(difference)))
    return PairedDifference(mean, low, high, p)


def paired_p(differences: FloatArray, fewest: int = 2) -> FloatArray:
    """Return the two-sided p value of the paired t test of each row; nan is a missing pair.

    Args:
        differences: [rows, seeds].
        fewest: rows with fewer pairs get nan.
    """
    known = np.isfinite(differences)
    pairs = known.sum(1)
    mean = np.where(known, differences, 0.0).sum(1) / np.maximum(pairs, 1)
    deviation = np.where(known, differences - mean[:, None], 0.0)
    error = np.sqrt((deviation**2).sum(1) / np.maximum(pairs - 1, 1) / np.maximum(pairs, 1))
    equal = error <= 1e-15 * np.maximum(np.abs(mean), 1e-300)  # all differences are equal: the t statistic is 0/0 or infinite
    t = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0.0, np.inf), where=~equal)
    p: FloatArray = 2 * special.stdtr(np.maximum(pairs - 1, 1), -t)
    return np.where(pairs >= max(fewest, 2), p, math.nan)


def pairs_to_decide(differences: npt.ArrayLike, level: float = 0.05, power: float = 0.8, most: int = 1000) -> int | None:
    """Return the number of paired seeds at which a paired t test finds a difference like the observed one with probability ``power``.

    It takes the observed mean and standard deviation as the true ones, so it is a rough plan and no promise. It is the total
    number of pairs, with those observed so far; ``None`` if it is more than ``most`` or if there are fewer than two pairs.
    """
    values = _sample(differences, "differences")
    if len(values) < 2 or values.mean() == 0.0:
        return None
    mean, deviation = abs(float(values.mean())), float(values.std(ddof=1))
    effect = mean / max(deviation, 1e-6 * mean)  # nctdtr is NaN for larger effects, as of differences that are equal up to rounding
    for pairs in range(2, most + 1):
        critical = t_quantile(1 - level / 2, pairs - 1)
        if 1.0 - float(special.nctdtr(pairs - 1, effect * math.sqrt(pairs), critical)) >= power:
            return pairs
    return None


def probability_of_improvement(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return P(X > Y) + P(X = Y)/2 over all pairs of runs, one of each policy (Agarwal et al. 2021, arXiv 2108.13264; one task)."""
    above = _sample(x, "x")[:, None] - _sample(y, "y")[None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def holm(p: npt.ArrayLike) -> FloatArray:
    """Return Holm's step-down adjusted p values, in the order of ``p`` (Holm 1979).

    Raises:
        InputError: a value is no p value, as the nan of a difference over fewer than two seeds.
    """
    if np.isnan(np.asarray(p, dtype=np.float64)).any():
        raise InputError("holm: p has a nan, as of a difference over fewer than two seeds; leave out comparisons without a p value")
    values = _sample(p, "p")
    if values.min() < 0 or values.max() > 1:
        raise InputError(f"holm: p has values from {values.min():g} to {values.max():g}; p values are in [0, 1]")
    order = np.argsort(values)
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def gap_recovered(score: npt.ArrayLike, floor: npt.ArrayLike, ceiling: npt.ArrayLike) -> FloatArray:
    """Return (score - floor) / (ceiling - floor) seed by seed; nan where the ceiling is not above the floor, so that there is no gap."""
    scores, floors, ceilings = _paired(score=score, floor=floor, ceiling=ceiling)
    gap = ceilings - floors
    return np.divide(scores - floors, gap, out=np.full_like(gap, math.nan), where=gap > 0)


def _sample(x: npt.ArrayLike, name: str) -> FloatArray:
    """Check a sample and return it as a finite, non-empty 1-D float array."""
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"statistics: {name} has shape {values.shape}; give a non-empty one-dimensional sample, one number per seed")
    if not np.isfinite(values).all():
        raise InputError(
            f"statistics: {name} has a value that is not finite ({values.tolist()}); leave out diverged runs and report their number"
        )
    return values


def _paired(**samples: npt.ArrayLike) -> list[FloatArray]:
    """Check that samples have equal lengths (entry i of each belongs to seed i) and return them."""
    values = [_sample(x, name) for name, x in samples.items()]
    if len({len(v) for v in values}) > 1:
        lengths = ", ".join(f"{name} {len(v)}" for name, v in zip(samples, values, strict=True))
        raise InputError(f"statistics: paired samples differ in length ({lengths}); keep only the seeds that all samples have")
    return values


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"statistics: level={level} is not between 0 and 1; a 95 % interval is level=0.95")
