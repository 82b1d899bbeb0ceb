"""Differences between examples: values worked out by hand."""

import pytest
from comparing import loss_of

from kd_env.knowledge.contrast import Contrast


def test_contrast_by_hand():
    student, teacher = [[2.0, 1.0], [0.0, 0.0], [5.0, 3.0]], [[1.0, 1.0], [0.0, 0.0], [5.0, 1.0]]
    # errors (1, 0), (0, 0), (0, 2); squared distances over two classes: .5 of 0 and 1, 2.5 of 0 and 2, 2 of 1 and 2
    assert loss_of(Contrast(), student, teacher).tolist() == pytest.approx([1.5, 1.25, 2.25])
