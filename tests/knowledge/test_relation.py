"""Relations between layers: values worked out by hand."""

import pytest
from comparing import loss_of

from kd_env.knowledge.relation import Relation


def test_relation_by_hand():
    student, teacher = [[[1.0, 0.0], [3.0, 3.0]]], [[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]
    # cosines 1/sqrt(2) and 0: two of four entries differ by 1/2 squared
    assert loss_of(Relation(), student, teacher).tolist() == pytest.approx([0.25])


@pytest.mark.parametrize("vector", [[1.0, 2.0], [0.0, 0.0]])
def test_one_layer_has_no_relation(vector):
    assert loss_of(Relation(), [[vector]], [[[3.0, -4.0, 1.0]]]).tolist() == [0.0]
