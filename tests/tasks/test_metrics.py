"""Metrics against scikit-learn's, and against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from kd_env.errors import InputError
from kd_env.tasks.metrics import METRICS, accuracy, f1, f1_macro, find, mcc, metric_key, metric_notes


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_they_equal_those_of_scikit_learn(num_classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=200)
    predictions = np.where(rng.random(200) < 0.6, labels, rng.integers(num_classes, size=200))
    average = "binary" if num_classes == 2 else "macro"
    assert accuracy(predictions, labels) == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))
    assert f1(predictions, labels) == pytest.approx(sklearn_metrics.f1_score(labels, predictions, average=average))
    assert mcc(predictions, labels) == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predictions))


def test_values_computed_by_hand():
    labels = np.array([1, 1, 1, 0, 0])
    predictions = np.array([1, 1, 0, 1, 0])
    assert accuracy(predictions, labels) == pytest.approx(3 / 5)
    assert f1(predictions, labels) == pytest.approx(2 * 2 / (3 + 3)), "precision and recall are 2/3"
    assert mcc(predictions, labels) == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


@pytest.mark.parametrize("name", METRICS)
def test_perfect_predictions_score_one_and_the_order_does_not_matter(name):
    labels = np.random.default_rng(0).integers(4, size=50)
    order = np.random.default_rng(1).permutation(50)
    assert METRICS[name](labels, labels) == pytest.approx(1.0)
    predictions = np.roll(labels, 1)
    assert METRICS[name](predictions[order], labels[order]) == pytest.approx(METRICS[name](predictions, labels))


def test_a_constant_prediction_has_mcc_0_and_f1_0_if_it_is_class_0():
    labels, never = np.array([0, 1, 1, 0]), np.zeros(4, dtype=np.int64)
    assert mcc(never, labels) == mcc(labels, never) == f1(never, labels) == 0.0
    assert f1(never, never) == mcc(never, never) == 0.0


def test_f1_is_binary_for_two_classes_and_macro_for_more():
    labels, predictions = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    of_class_one, of_class_zero = 2 / 3, 4 / 5
    assert f1(predictions, labels) == f1(predictions, labels, num_classes=2) == pytest.approx(of_class_one)
    assert f1(predictions, labels, num_classes=3) == pytest.approx((of_class_one + of_class_zero) / 2)


def test_opposite_predictions_have_mcc_minus_one():
    labels = np.array([0, 1, 1, 0, 1])
    assert mcc(1 - labels, labels) == pytest.approx(-1.0)


def test_f1_of_a_named_class_and_the_mean_of_all():
    labels, predictions = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    assert f1_macro(predictions, labels, 2) == pytest.approx((2 / 3 + 4 / 5) / 2)
    names = ("fraud", "legit")
    assert metric_key("f1(class=fraud)", names, "it") == metric_key("f1(class=FRAUD)", names, "it") == "f1(class=0)"
    assert metric_key("f1(class=2)", ("1", "2"), "it") == "f1(class=1)"
    assert find("f1(class=0)")(predictions, labels, 2) == pytest.approx(4 / 5)
    assert find("f1(class=1)")(predictions, labels, 2) == f1(predictions, labels, 2)
    assert find(metric_key("mcc", names, "it")) is mcc


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("f1(class=spam)", r"unknown class in the metric 'f1\(class=spam\)' of it 'spam'; known: fraud, legit"),
        ("mcc(class=fraud)", "only f1 takes an option, the class"),
        ("f1(of=fraud)", r"only f1 takes an option, the class: f1\(class=fraud\)"),
        ("recall", "unknown metric of it 'recall'; known: accuracy, f1, f1_macro, mcc"),
    ],
)
def test_a_metric_that_is_not_there_is_refused(metric, message):
    with pytest.raises(InputError, match=message):
        metric_key(metric, ("fraud", "legit"), "it")


def test_a_note_says_whose_f1_it_is():
    labels = np.array([0, 1, 1, 1])
    (note,) = metric_notes("f1", ("fraud", "legit"), labels)
    assert note.startswith("f1 is that of class 'legit' (3 of 4 training examples), the second class; metric=f1(class=fraud)")
    assert metric_notes("f1(class=fraud)", ("fraud", "legit"), labels) == metric_notes("accuracy", ("a", "b"), labels) == []
    assert "macro F1" in metric_notes("f1", ("a", "b", "c"), labels)[0]
