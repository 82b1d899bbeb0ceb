"""Statistics over settings against values computed by hand or by scipy."""

import numpy as np
import pytest
from scipy import stats

from kd_env.benchmark import aggregates
from kd_env.benchmark.statistics import iqm, pairs_to_decide
from kd_env.errors import InputError

EASY, HARD = np.array([0.90, 0.92, 0.94, 0.96]), np.array([0.10, 0.20, 0.30, 0.40])


def test_the_iqm_is_of_all_runs_and_its_interval_keeps_the_settings_apart():
    estimate = aggregates.iqm_over_settings([EASY, HARD])
    assert estimate.value == pytest.approx(np.mean([0.3, 0.4, 0.9, 0.92]))
    assert estimate.low < estimate.value < estimate.high
    rng = np.random.default_rng(3)
    samples = [iqm(np.concatenate([rng.choice(EASY, 4), rng.choice(HARD, 4)])) for _ in range(4000)]
    assert (estimate.low, estimate.high) == pytest.approx(np.percentile(samples, [2.5, 97.5]).tolist(), abs=0.02)
    mixed = np.percentile([iqm(rng.choice(np.concatenate([EASY, HARD]), 8)) for _ in range(4000)], [2.5, 97.5])
    assert estimate.high - estimate.low < 0.5 * (mixed[1] - mixed[0]), "without strata the interval would be of another question"


def test_one_seed_has_no_interval():
    estimate = aggregates.iqm_over_settings([EASY, np.array([0.5])])
    assert np.isnan(estimate.low)
    assert np.isnan(estimate.high)


def test_the_probability_of_improvement_is_a_mean_over_settings():
    higher, lower = [np.array([2.0, 3.0]), np.array([1.0, 1.0])], [np.array([1.0, 2.0]), np.array([1.0, 5.0])]
    estimate = aggregates.improvement_over_settings(higher, lower)
    assert estimate.value == pytest.approx(((1 + 0.5 + 1 + 1) / 4 + (0.5 + 0 + 0.5 + 0) / 4) / 2)
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    assert aggregates.improvement_over_settings([EASY], [HARD]) == (1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="1 and 2 settings"):
        aggregates.improvement_over_settings([EASY], [EASY, HARD])


def test_a_profile_is_the_share_of_runs_above_each_threshold():
    profile = aggregates.performance_profile([EASY, HARD[:2]], [0.0, 0.1, 0.15, 0.93, 1.0])
    assert profile.tolist() == pytest.approx([1.0, 0.75, 0.75, 0.25, 0.0])


def test_mean_ranks_and_ties():
    scores = [[0.9, 0.8, 0.7], [0.5, 0.6, 0.5], [0.1, 0.1, 0.1]]
    expected = np.mean([stats.rankdata([-value for value in row]) for row in scores], 0)
    assert aggregates.mean_ranks(scores).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(("policies", "settings", "quantile"), [(2, 10, 1.960), (4, 14, 2.569), (10, 30, 3.164)])
def test_the_critical_difference_has_demsar_s_quantiles(policies, settings, quantile):
    """Demsar 2006, table 5(a)."""
    expected = quantile * np.sqrt(policies * (policies + 1) / (6 * settings))
    assert aggregates.critical_difference(policies, settings) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
def test_the_pairs_to_decide_have_the_power(effect):
    """Against simulated experiments: the number reached gives 80 %, one fewer gives less."""
    differences = np.array([-1.0, 1.0]) / np.sqrt(2) + effect  # standard deviation 1
    pairs = pairs_to_decide(differences)
    rng = np.random.default_rng(0)

    def power(count):
        samples = rng.normal(effect, 1.0, (20_000, count))
        return float((stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean())

    assert power(pairs) > 0.79
    assert power(pairs - 1) < 0.81


def test_pairs_that_cannot_be_decided():
    assert pairs_to_decide([0.1]) is None
    assert pairs_to_decide([0.1, -0.1]) is None
    assert pairs_to_decide([1e-6, 2e-6, 1.0, -1.0]) is None
    assert pairs_to_decide([0.1, 0.1]) == 2
    assert pairs_to_decide([0.3 - 0.2, 0.1, 0.7 - 0.6]) == 2, "equal up to rounding"
