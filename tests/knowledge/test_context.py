"""The context of a loss."""

import torch

from kd_env.knowledge import LossContext


def test_the_squared_temperature_multiplies_a_loss():
    assert LossContext(3.0).temperature_squared == 9.0
    assert LossContext(torch.tensor([[2.0], [3.0]])).temperature_squared.tolist() == [4.0, 9.0]
    assert LossContext().temperature_squared == 1.0


def test_with_an_axis_for_teachers_it_broadcasts_against_them():
    wide = LossContext(torch.ones(4, 1), torch.arange(4)).for_all_teachers()
    assert wide.temperature.shape == (4, 1, 1)
    assert wide.temperature_squared.shape == (4, 1)
    assert wide.labels.tolist() == [[0], [1], [2], [3]]
    assert LossContext(2.0).for_all_teachers() == LossContext(2.0, None)
