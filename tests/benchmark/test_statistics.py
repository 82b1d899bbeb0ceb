"""Statistics against values worked out by hand, and the properties that define them."""

import math

import numpy as np
import pytest

from kd_env.benchmark.statistics import (
    bootstrap_interval,
    gap_recovered,
    holm,
    iqm,
    mean_interval,
    paired_difference,
    probability_of_improvement,
)
from kd_env.errors import InputError


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm([100, 2, 3, -50]) == 2.5
    assert iqm([1, 2, 3, 4, 5, 6, 7, 1000]) == 4.5


def test_mean_interval_is_students():
    low, high = mean_interval([1, 2, 3, 4, 5])  # sd/√n = √(2.5/5), t(4; .975) = 2.7764
    assert (low, high) == pytest.approx((3 - 2.7764 * math.sqrt(0.5), 3 + 2.7764 * math.sqrt(0.5)), abs=1e-4)


def test_mean_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [low <= 1.0 <= high for low, high in (mean_interval(rng.normal(1, 2, 5), level=0.8) for _ in range(1000))]
    assert np.mean(covered) == pytest.approx(0.8, abs=0.04)


def test_bootstrap_interval_of_the_mean_nears_the_normal_one():
    x = np.random.default_rng(1).normal(0, 1, 400)
    half = 1.96 * x.std() / 20
    assert bootstrap_interval(x) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.015)


def test_bootstrap_interval_depends_on_the_seed_and_level_only():
    x = [0.1, 0.4, 0.5, 0.9]
    assert bootstrap_interval(x, seed=3) == bootstrap_interval(x, seed=3)
    wide, narrow = bootstrap_interval(x, level=0.99), bootstrap_interval(x, level=0.5)
    assert min(x) <= wide[0] < narrow[0] < narrow[1] < wide[1] <= max(x)


def test_bootstrap_interval_is_the_same_for_a_statistic_with_and_without_axis():
    x = [1.0, 2.0, 4.0, 8.0]
    assert bootstrap_interval(x, lambda sample: float(sample.mean())) == pytest.approx(bootstrap_interval(x, np.mean))


def test_bootstrap_interval_of_one_outlier_resists_in_the_iqm():
    x = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 30.0]
    assert bootstrap_interval(x, iqm)[1] < bootstrap_interval(x)[1]


@pytest.mark.parametrize("interval", [mean_interval, bootstrap_interval])
def test_one_seed_has_no_interval(interval):
    assert all(math.isnan(end) for end in interval([0.7]))


def test_paired_difference_by_hand():
    result = paired_difference([3, 5, 4], [2, 3, 4])  # differences 1, 2, 0: mean 1, sd/√n = 1/√3, t = √3, p(t=1.732, 2 df) = .2254
    assert result.mean == 1
    assert (result.low, result.high) == pytest.approx((1 - 4.30265 / math.sqrt(3), 1 + 4.30265 / math.sqrt(3)), abs=1e-4)
    assert result.p == pytest.approx(0.2254, abs=1e-4)


def test_paired_difference_ignores_what_seeds_share():
    seeds = np.array([0.0, 50.0, -20.0, 7.0])
    x, y = np.array([1.0, 1.2, 0.9, 1.1]) + seeds, np.array([0.5, 0.6, 0.5, 0.4]) + seeds
    assert paired_difference(x, y) == pytest.approx(paired_difference(x - seeds, y - seeds))
    assert paired_difference(x, y).low > 0


def test_paired_difference_of_equal_differences_and_of_one_pair():
    assert paired_difference([1, 2, 3], [1, 2, 3]) == (0, 0, 0, 1)
    assert paired_difference([2, 3, 4], [1, 2, 3]) == (1, 1, 1, 0)
    single = paired_difference([2], [1])
    assert single.mean == 1
    assert math.isnan(single.low)
    assert math.isnan(single.p)


def test_probability_of_improvement_counts_pairs_and_halves_ties():
    assert probability_of_improvement([1, 3], [2, 3]) == pytest.approx(1.5 / 4)
    assert probability_of_improvement([5, 6, 7], [1, 2]) == 1
    x, y = [0.3, 0.5, 0.5], [0.5, 0.1]
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == pytest.approx([1.0, 1.0])
    assert holm([0.02]).tolist() == [0.02]


def test_gap_recovered_by_hand():
    recovered = gap_recovered([0.5, 0.9, 0.2], [0.4, 0.5, 0.4], [0.8, 0.9, 0.4])
    assert recovered[:2].tolist() == pytest.approx([0.25, 1.0])
    assert math.isnan(recovered[2])  # the ceiling is not above the floor


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]])
@pytest.mark.parametrize("statistic", [iqm, mean_interval, bootstrap_interval, holm, lambda x: probability_of_improvement([1.0], x)])
def test_what_is_no_sample_is_refused(statistic, bad):
    with pytest.raises(InputError):
        statistic(bad)


def test_other_bad_input_is_refused_by_name():
    with pytest.raises(InputError, match="x 2, y 1"):
        paired_difference([1, 2], [1])
    with pytest.raises(InputError, match=r"level=95"):
        mean_interval([1, 2], level=95)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        holm([0.1, 1.2])
    with pytest.raises(InputError, match="p has a nan, as of a difference over fewer than two seeds"):
        holm([0.1, paired_difference([0.5], [0.4]).p])
