"""The linear classifier of fixed features, against values computed by hand."""

import math

import pytest
import torch

from kd_env.teachers.logistic_regression import fit_classifier


def test_two_points_by_hand():
    # x = -1 is class 0, x = 1 class 1, as often; W = (-a, a) gives mean CE log(1 + exp(-2a)) and a penalty of ridge/2 * 2 a^2, so at the
    # optimum 2 / (1 + exp(2a)) = 2 ridge a: with ridge = 1 / (1 + e^2) that is a = 1
    features = torch.tensor([[-1.0], [1.0]] * 5, dtype=torch.float64)
    labels = torch.tensor([0, 1] * 5)
    weight, bias = fit_classifier(features, labels, 2, ridge=1 / (1 + math.exp(2)))
    assert weight.flatten().tolist() == pytest.approx([-1, 1], abs=1e-5)
    assert bias.tolist() == pytest.approx([0, 0], abs=1e-5)
    # the same features as 3 + 4x: 4 times the spread, so a quarter of the weight, and the mean of 3 taken out again
    weight, bias = fit_classifier(3 + 4 * features, labels, 2, ridge=1 / (1 + math.exp(2)))
    assert weight.flatten().tolist() == pytest.approx([-0.25, 0.25], abs=1e-5)
    assert bias.tolist() == pytest.approx([0.75, -0.75], abs=1e-5)


def test_a_constant_feature_has_no_weight_and_the_bias_gives_the_class_frequencies():
    features = torch.ones(8, 3, dtype=torch.float64)
    weight, bias = fit_classifier(features, torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]), 2)
    assert weight.abs().max() == 0
    assert bias.softmax(0).tolist() == pytest.approx([0.75, 0.25], abs=1e-5)
