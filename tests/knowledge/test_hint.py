"""Hints: values worked out by hand, and the linear projector."""

import pytest
import torch
from comparing import draw, loss_of
from torch import nn

from kd_env.knowledge.hint import Hint, LinearProjector
from kd_env.types import ModelOutput, TeacherShapes


def test_hint_by_hand():
    student, teacher = [[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, -5.0]]
    assert loss_of(Hint(), student, teacher).tolist() == [10.0, 24.5]  # (4 + 16) / 2, 49 / 2
    # (3/5, 4/5) - (1, 0): 4/25 + 16/25; opposite directions are 2 apart
    assert loss_of(Hint(normalized=True), student, teacher).tolist() == pytest.approx([0.8, 4.0])


def test_a_normalized_hint_is_twice_the_cosine_loss():
    student, teacher = draw(6, 5), draw(6, 5, seed=1)
    cosine = 1.0 - torch.cosine_similarity(student, teacher)
    torch.testing.assert_close(0.5 * loss_of(Hint(normalized=True), student, teacher), cosine)


def test_hint_of_another_example_by_hand():
    assert loss_of(Hint(), [[1.0, 2.0], [0.0, -1.0]], [[0.0, 4.0], [0.0, -1.0]]).tolist() == pytest.approx([2.5, 0.0])  # (1 + 4) / 2


class Echo(nn.Module):
    """Returns its input as features."""

    def forward(self, x):
        return ModelOutput(x[:, :1], x)


def test_features_are_mapped_by_hand():
    network = LinearProjector(Echo(), Echo()(torch.ones(1, 2)), TeacherShapes((1, 2)))
    assert [tuple(matrix.shape) for matrix in network.maps] == [(2, 1), (2, 2)]
    with torch.no_grad():
        network.maps[0].copy_(torch.tensor([[1.0], [10.0]]))
        network.maps[1].copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    output = network(x=torch.tensor([[2.0, 3.0]]))
    assert [mapped.tolist() for mapped in output.projections["linear"]] == [[[32.0]], [[3.0, 2.0]]]
    assert output.features.tolist() == [[2.0, 3.0]], "the student's own stay"
    assert LinearProjector.for_teacher(output, 1).features.tolist() == [[3.0, 2.0]]
