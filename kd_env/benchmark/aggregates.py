"""Compute statistics of scores over several settings. In: strata, one array of scores per setting, one number per seed.

After Agarwal et al. 2021, arXiv 2108.13264 (interquartile mean, performance profile, probability of improvement, stratified bootstrap) and
Demšar 2006 (mean ranks, critical difference). All functions are pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_env.benchmark.statistics import NO_INTERVAL, FloatArray, iqm, probability_of_improvement
from kd_env.errors import InputError

RESAMPLES = 1000
Strata = Sequence[FloatArray]


class Estimate(NamedTuple):
    """A value with its 95 % interval, which is (nan, nan) if a setting has one seed."""

    value: float
    low: float
    high: float


def iqm_over_settings(strata: Strata, seed: int = 0) -> Estimate:
    """Return the interquartile mean of all runs, with its stratified bootstrap interval: seeds are drawn again within each setting."""
    runs = np.concatenate(strata)
    drawn = np.sort(np.concatenate([values[rows] for values, rows in zip(strata, _draws(strata, seed), strict=True)], 1), 1)
    quarter = len(runs) // 4
    return Estimate(iqm(runs), *_percentiles(drawn[:, quarter : len(runs) - quarter].mean(1), strata))


def improvement_over_settings(x: Strata, y: Strata, seed: int = 0) -> Estimate:
    """Return the mean over settings of P(X > Y) + P(X = Y) / 2, with its stratified bootstrap interval."""
    if len(x) != len(y):
        raise InputError(f"aggregates: {len(x)} and {len(y)} settings; compare policies on the same settings")
    value = float(np.mean([probability_of_improvement(first, second) for first, second in zip(x, y, strict=True)]))
    resampled = np.zeros(RESAMPLES)
    for first, second, rows, columns in zip(x, y, _draws(x, seed), _draws(y, seed + 1), strict=True):
        wins = (np.sign(first[:, None] - second[None, :]) + 1) / 2  # [n, m]
        resampled += wins[rows[:, :, None], columns[:, None, :]].mean((1, 2)) / len(x)
    return Estimate(value, *_percentiles(resampled, [*x, *y]))


def performance_profile(strata: Strata, thresholds: npt.ArrayLike) -> FloatArray:
    """Return the share of runs with a score above each threshold, the mean over settings, ``[thresholds]``."""
    above: FloatArray = np.mean([(values[None, :] > np.asarray(thresholds)[:, None]).mean(1) for values in strata], 0)
    return above


def mean_ranks(scores: npt.ArrayLike) -> FloatArray:
    """Return the mean rank of each policy over settings; rank 1 is the highest score, ties share their mean rank.

    Args:
        scores: mean score of each policy in each setting, ``[settings, policies]``.
    """
    table = np.asarray(scores, dtype=np.float64)
    higher = (table[:, None, :] > table[:, :, None]).sum(2)
    equal = (table[:, None, :] == table[:, :, None]).sum(2)
    ranks: FloatArray = (higher + (equal + 1) / 2).mean(0)
    return ranks


def critical_difference(num_policies: int, num_settings: int, level: float = 0.05) -> float:
    """Return the difference of mean ranks from which two policies differ by the Nemenyi test."""
    from scipy import stats  # takes half a second to import

    quantile = float(stats.studentized_range.ppf(1 - level, num_policies, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(num_policies * (num_policies + 1) / (6 * num_settings))


def _draws(strata: Strata, seed: int) -> list[npt.NDArray[np.int64]]:
    """Return the rows of the bootstrap samples of each setting, ``[RESAMPLES, n]``."""
    rng = np.random.default_rng(seed)
    return [rng.integers(len(values), size=(RESAMPLES, len(values))) for values in strata]


def _percentiles(resampled: FloatArray, strata: Strata) -> tuple[float, float]:
    if min(map(len, strata)) < 2:
        return NO_INTERVAL
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)
