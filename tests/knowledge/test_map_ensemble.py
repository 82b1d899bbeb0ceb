"""FEED on feature maps: the formula, and the convolutions."""

import pytest
import torch
from comparing import draw, loss_of
from torch import nn
from torch.nn.functional import normalize

from kd_env.knowledge.map_ensemble import MapEnsemble, NonlinearMapProjector


def test_by_hand():
    student, teacher = [[[[3.0, 0.0]], [[4.0, 0.0]]]], [[[[0.0, 2.0]], [[0.0, 0.0]]]]
    assert loss_of(MapEnsemble(), student, teacher).tolist() == pytest.approx([0.6 + 0.8 + 1.0])


def test_it_is_the_l1_distance_of_maps_of_length_1():
    student, teacher = draw(5, 3, 4, 2), draw(5, 3, 4, 2, seed=1)
    expected = (normalize(student.flatten(1)) - normalize(teacher.flatten(1))).abs().sum(1)
    torch.testing.assert_close(loss_of(MapEnsemble(), student, teacher), expected, rtol=1e-5, atol=1e-7)


def test_three_convolutions_of_3x3():
    layers = NonlinearMapProjector.regressor(4, 6)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in convolutions] == [(6, 4, 3, 3), (6, 6, 3, 3), (6, 6, 3, 3)]
    assert layers(torch.randn(2, 4, 5, 5)).shape == (2, 6, 5, 5)
    assert isinstance(layers[-1], nn.Conv2d), "directions have both signs"
