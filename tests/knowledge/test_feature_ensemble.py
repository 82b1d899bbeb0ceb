"""The feature ensemble: values worked out by hand, and the nonlinear projector."""

import pytest
import torch
from comparing import loss_of

from kd_env.knowledge.feature_ensemble import FeatureEnsemble, MLPProjector
from kd_env.models.networks import build
from kd_env.types import TeacherShapes


def test_feature_ensemble_by_hand():
    student, teacher = [[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 5.0]]
    assert loss_of(FeatureEnsemble(), student, teacher).tolist() == pytest.approx([1.2, 0.0])  # 2/5 + 4/5; one direction


def test_the_maps_of_the_feature_ensemble_are_not_linear(digits_data):
    network = build("mlp(width=3)", digits_data.task, 0)
    projector = MLPProjector(network, network(digits_data.inputs["train"]["pixel_values"][:1]), TeacherShapes((1, 2)))
    with torch.no_grad():
        first, _, second = projector.mlps[0]
        first.weight.copy_(torch.tensor([[1.0, -1.0, 0.0]]))
        first.bias.fill_(0.5)
        second.weight.fill_(-2.0)
        second.bias.fill_(1.0)
        mapped = projector.mlps[0](torch.tensor([[2.0, 1.0, 9.0], [0.0, 1.0, 9.0]]))
    assert mapped.tolist() == [[-2.0], [1.0]]  # 1 - 2 * 1.5; 1 - 2 * max(-.5, 0)
