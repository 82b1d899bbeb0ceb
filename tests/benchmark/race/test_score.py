"""Scores, paired differences and the choice of a race, with known answers."""

import numpy as np
import pytest

from kd_env.benchmark.race import score
from kd_env.tasks import Defaults, Split, Task


def task(validation=100, reward=100, metric="accuracy"):
    def split(size):
        return Split(np.zeros((size, 1, 2, 2), dtype=np.float32), np.arange(size) % 2)

    defaults = Defaults("own", "mlp", 10, 1.0, 2.0)
    return Task("toy", "image", split(8), split(reward), split(validation), None, ("no", "yes"), defaults, metric=metric)


def predictions(of, wrong, students=1, splits=("validation", "reward")):
    """Return predictions with ``wrong`` errors at the start of each split."""
    by_split = {}
    for split in splits:
        labels = getattr(of, split).labels
        classes = labels.copy()
        classes[: wrong[split]] = 1 - classes[: wrong[split]]
        by_split[split] = np.tile(classes, (students, 1))
    return by_split


def test_a_small_validation_split_is_extended_by_reward_unless_the_policy_reads_it():
    assert score.scoring_splits(task(499), False) == ("validation", "reward")
    assert score.scoring_splits(task(499), True) == ("validation",)
    assert score.scoring_splits(task(500), False) == ("validation",)


def test_a_candidate_that_is_scored_on_validation_alone_is_corrected():
    of = task()
    both = predictions(of, {"validation": 10, "reward": 20})  # .90 and .80, together .85
    alone = predictions(of, {"validation": 10}, splits=("validation",))
    assert score.scores(of, [both, alone]) == pytest.approx([0.85, 0.85])
    better = predictions(of, {"validation": 5}, splits=("validation",))
    assert score.scores(of, [both, better, alone]) == pytest.approx([0.85, 0.90, 0.85])


def test_losses_are_corrected_as_scores_are():
    of = task(100, 300)
    both, alone = {"validation": np.array([0.2, 0.4]), "reward": np.array([0.7, 0.7])}, {"validation": np.array([0.5])}
    assert score.mean_losses(of, [both, alone]) == pytest.approx([0.6, 0.8])  # (0.3 * 100 + 0.7 * 300) / 400; 0.5 + 0.3


def test_a_loss_does_not_depend_on_how_certain_a_student_is():
    of = task(400, 8)
    right = np.where(np.arange(400) % 10 < 9, 1.0, -1.0)[:, None] * np.eye(2)[of.validation.labels]  # 90 % of the labels
    losses = score.held_out_losses(of, "validation", np.stack([0.5 * right, 3.0 * right, 0.0 * right]))
    entropy = -0.9 * np.log(0.9) - 0.1 * np.log(0.1)
    assert losses == pytest.approx([entropy, entropy, np.log(2)], abs=0.002)


def test_near_the_best_score_loss_decides_and_elsewhere_the_score():
    of = task(100, 8)
    wrong = [10, 11, 30, 40]
    candidates = [predictions(of, {"validation": number}, splits=("validation",)) for number in wrong]
    assert score.rank(of, candidates, [0.5, 0.4, 0.2, 0.1]) == [1, 0, 2, 3]
    assert score.rank(of, candidates, [0.4, 0.5, 0.2, 0.1]) == [0, 1, 2, 3]
    assert score.rank(of, [candidates[0]] * 3, [0.5, 0.4, 0.45]) == [1, 2, 0]


def test_the_standard_error_of_a_paired_difference_is_that_of_the_formula():
    of = task(400, 8)
    better, worse = (predictions(of, {"validation": wrong}, splits=("validation",)) for wrong in (20, 60))
    gain = score.difference(of, better, worse)
    assert gain.mean == pytest.approx(0.1)
    assert gain.examples == 400
    exact = np.sqrt((0.1 - 0.1**2) / 400 + 4 / 400**2)  # 40 discordant examples, all one way
    assert gain.standard_error == pytest.approx(exact, rel=0.1)
    low, high = gain.interval
    assert low == pytest.approx(0.1 - 1.96 * gain.standard_error, abs=1e-4)
    assert high > 0.1


def test_a_difference_uses_the_examples_that_both_are_scored_on():
    of = task()
    both, alone = predictions(of, {"validation": 3, "reward": 50}), predictions(of, {"validation": 1}, splits=("validation",))
    assert score.difference(of, alone, both)[::2] == (pytest.approx(0.02), 100)


@pytest.mark.parametrize(("ahead", "chosen"), [(1, 0), (2, 0), (4, 0), (5, 1), (8, 1)])  # 4 / sqrt(4 + 4) = 1.4, 5 / sqrt(5 + 4) = 1.67
def test_one_example_does_not_decide(ahead, chosen):
    of = task(90, 8)
    simple, better = (predictions(of, {"validation": wrong}, splits=("validation",)) for wrong in (10, 10 - ahead))
    assert score.simplest_unbeaten(of, [simple, better], [0, 1]) == chosen
    assert score.simplest_unbeaten(of, [better, simple], [1, 0]) == 1 - chosen


@pytest.mark.parametrize(("wrong", "by_hand"), [(1, (0.995, 0.9722, 0.9991)), (0, (1.0, 200 / (200 + 1.96**2), 1.0))])
def test_the_interval_of_an_accuracy_is_wilson_s(wrong, by_hand):
    of = task(200, 8)
    (classes,) = predictions(of, {"validation": wrong}, splits=("validation",))["validation"]
    assert score.score_interval(of, of.validation.labels, classes) == pytest.approx(by_hand, abs=5e-5)


def test_other_metrics_are_resampled_too():
    of = task(200, 8, "f1")
    predicted = predictions(of, {"validation": 20}, splits=("validation",))
    classes = predicted["validation"][0]
    mean, low, high = score.score_interval(of, of.validation.labels, classes)
    assert mean == pytest.approx(0.9)  # 90 right of class 1, 10 wrong of each class
    assert low < 0.87 < 0.93 < high
    assert score.student_scores(of, {"validation": np.stack([classes, of.validation.labels])}) == pytest.approx([0.9, 1.0])
