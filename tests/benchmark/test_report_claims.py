"""Claims about the policy with the highest score."""

import itertools

import numpy as np
import pytest
from hand_made import NOISE, record, runs, setting
from scipy import stats

from kd_env.benchmark.report_claims import all_pairs, claim
from kd_env.benchmark.statistics import holm, paired_difference, paired_p, pairs_to_decide
from kd_env.benchmark.summary import summarise


def claim_of(records):
    return claim(all_pairs(summarise(records), records))


def test_all_pairs_are_compared_and_corrected_together():
    records = setting()
    stated = claim_of(records)
    scores = {p: [r["test"] for r in records if r["policy"] == p] for p in ("learner", "uniform", "router", "lr_dev(c=1)", "entropy")}
    pairs = list(itertools.combinations(scores, 2))
    adjusted = dict(zip(pairs, holm([paired_difference(scores[a], scores[b]).p for a, b in pairs]), strict=True))
    assert stated.winner == "learner"
    assert stated.pairs == 10
    assert set(stated.above) == {b for (a, b), p in adjusted.items() if a == "learner" and p < 0.05} == set(scores) - {"learner"}
    assert "learner is above 4 of 4 other policies with p < 0.05" in str(stated)
    assert "all 10 pairs" in str(stated)


def test_the_highest_mean_of_other_seeds_is_not_called_above():
    """A has the highest mean because of seeds that B lacks; over the five that both have, it is below B."""
    a = [record("a", "nothing", seed, (0.5 if seed < 5 else 0.9) + NOISE[seed % 5]) for seed in range(10)]
    b = [record("b", "nothing", seed, 0.6 + NOISE[seed] + 0.001 * seed) for seed in range(5)]
    stated = claim_of([*a, *b])
    assert (stated.winner, stated.above, stated.below) == ("a", (), ("b",))
    assert "a is above 0 of 1 other policies" in str(stated)
    assert "Over the seeds in common it is below b: compare policies of equal seeds." in str(stated)


def test_policies_with_overlapping_scores_are_not_distinguishable():
    noise = [0.02, -0.02, 0.01, -0.01, 0.005]
    near = [record("near", "nothing", seed, 0.69 + noise[seed]) for seed in range(5)]
    records = [*runs("router", "reward labels", 0.7), *near, *runs("uniform", "nothing", 0.3)]
    stated = claim_of(records)
    assert (stated.winner, stated.above, stated.equal) == ("router", ("uniform",), ("near",))
    more = pairs_to_decide([0.01 + NOISE[seed] - noise[seed] for seed in range(5)]) - 5
    assert "It is not distinguishable from near. To decide between router and near alone, about " in str(stated)
    assert str(stated).endswith(f"about {more} more seeds would be needed at the observed difference (80 % power).")
    alone = claim_of([record for record in records if record["policy"] != "uniform"])
    assert "router is not distinguishable from any other policy" in str(alone)


def test_a_privileged_policy_does_not_win():
    assert claim_of(setting()).winner == "learner"
    assert claim_of([*runs("oracle", "privileged", 0.8), *runs("uniform", "nothing", 0.4)]) is None


def test_few_seeds_allow_no_order():
    stated = claim_of(setting(seeds=4))
    assert (stated.winner, stated.pairs) == ("learner", 0)
    assert "no order may be claimed" in str(stated)


def test_a_policy_with_too_few_seeds_is_not_called_equal():
    stated = claim_of([*setting(), *runs("short", "nothing", 0.7, seeds=3)])
    assert (stated.winner, stated.few) == ("learner", ("short",))
    assert "short" not in stated.above + stated.equal
    assert str(stated).endswith("Not compared, with fewer than 5 seeds in common: short.")


def test_a_pair_that_only_the_adjustment_leaves_open_needs_no_more_seeds():
    gaps = [0.005, 0.02, 0.035, 0.005, 0.02]
    near = [record("near", "nothing", seed, 0.7 + NOISE[seed] - gap) for seed, gap in enumerate(gaps)]
    stated = claim_of([*runs("best", "nothing", 0.7), *near, *(run for i in range(6) for run in runs(f"other {i}", "nothing", 0.3))])
    p = stats.ttest_1samp(gaps, 0).pvalue
    assert p < 0.05
    assert stated.equal == ("near",)
    assert str(stated).endswith(f"best and near alone would differ with p = {p:.3f}; after the adjustment it is not significant.")


def test_equal_scores_cannot_be_decided():
    stated = claim_of([*runs("a", "nothing", 0.5), *runs("b", "nothing", 0.5)])
    assert str(stated).endswith("To decide between a and b alone, more than 1,000 seeds would be needed at the observed difference.")


def test_differences_of_pairs_are_over_common_seeds():
    records = [record("a", "nothing", seed, 0.1 * seed) for seed in range(6)] + [record("b", "nothing", seed, 0.3) for seed in (0, 1, 9)]
    pairs = all_pairs(summarise(records), records)
    assert pairs.policies == ("b", "a")
    assert pairs.differences[0, 1] == pytest.approx(((0.3 - 0.0) + (0.3 - 0.1)) / 2)
    assert pairs.differences[1, 0] == pytest.approx(-pairs.differences[0, 1])


def test_many_names_are_counted():
    equal = [run for i in range(12) for run in runs(f"policy {i:02d}", "nothing", 0.5)]
    text = str(claim_of(equal))
    assert "policy 08 and 3 others" in text
    assert "policy 09" not in text


def test_paired_p_is_the_paired_t_test_of_each_row():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6, 8))
    expected = stats.ttest_rel(x, y, axis=1).pvalue
    assert paired_p(x - y) == pytest.approx(expected)
    rows = np.array([[0.1] * 4, [0.0] * 4, [0.1, np.nan, np.nan, np.nan], [0.3, 0.1, np.nan, 0.2]])
    p = paired_p(rows)
    assert p[0] == 0
    assert p[1] == 1
    assert np.isnan(p[2])
    assert p[3] == pytest.approx(stats.ttest_1samp([0.3, 0.1, 0.2], 0).pvalue)
    assert np.isnan(paired_p(rows, fewest=4)[3])
