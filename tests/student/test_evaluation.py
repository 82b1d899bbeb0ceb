"""Loss and metric of several students at once, by hand."""

import math

import pytest
import torch

from kd_env.student.evaluation import loss_and_metric

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 4.0], [0.0, 6.0], [0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 1])


def ce(margin):
    return math.log1p(math.exp(-margin))


def test_each_student_has_the_mean_over_its_own_rows():
    loss, accuracy = loss_and_metric(LOGITS, LABELS, 2)
    assert loss.tolist() == pytest.approx([(ce(2.0) + ce(4.0)) / 2, (ce(-6.0) + ce(0.0)) / 2])
    assert accuracy.tolist() == [1.0, 0.0], "of equal logits the first class is predicted"


def test_labels_may_be_shared():
    loss, accuracy = loss_and_metric(LOGITS, LABELS[:2], 2)
    assert loss.tolist() == pytest.approx([(ce(2.0) + ce(4.0)) / 2, (ce(-6.0) + ce(0.0)) / 2])
    assert accuracy.tolist() == [1.0, 0.0]


def test_one_student_is_the_mean_over_all_rows():
    loss, accuracy = loss_and_metric(LOGITS, LABELS, 1)
    assert loss.tolist() == pytest.approx([(ce(2.0) + ce(4.0) + ce(-6.0) + ce(0.0)) / 4])
    assert accuracy.tolist() == [0.5]


def test_another_metric_is_computed_for_each_student():
    logits, labels = LOGITS[[0, 1, 1, 0]], torch.tensor([0, 1, 0, 1])
    _, correlation = loss_and_metric(logits, labels, 2, "mcc")
    assert correlation.tolist() == pytest.approx([1.0, -1.0])
