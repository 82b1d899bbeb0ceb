"""Similarity-preserving distillation of feature maps: the released loss."""

import pytest
import torch
from comparing import draw, loss_of, tensor
from torch.nn.functional import normalize

from kd_env.knowledge.map_similarity import MapSimilarity
from kd_env.knowledge.similarity import Similarity


def released(student, teacher):
    """The loss of RepDistiller's distiller_zoo/SP.py, written out again."""
    size = len(student)
    grams = [normalize(maps.reshape(size, -1) @ maps.reshape(size, -1).t()) for maps in (student, teacher)]
    return ((grams[1] - grams[0]) ** 2).sum() / (size * size)


@pytest.mark.parametrize("side", [4, 2])
def test_it_is_the_released_loss(side):
    student, teacher = draw(6, 3, 4, 4), draw(6, 5, side, side, seed=1)
    torch.testing.assert_close(loss_of(MapSimilarity(), student, teacher).mean(), released(student, teacher), rtol=1e-5, atol=1e-9)


def test_a_map_counts_as_one_vector():
    student, teacher = draw(4, 2, 3, 3), draw(4, 3, 2, 2, seed=2)
    vectors = loss_of(Similarity("preserving"), student.flatten(1), teacher.flatten(1))
    assert torch.equal(loss_of(MapSimilarity(), student, teacher), vectors)
    assert loss_of(MapSimilarity(), tensor([[[[2.0]]]]), tensor([[[[3.0]]]])).tolist() == [0.0], "one example has no pair"
