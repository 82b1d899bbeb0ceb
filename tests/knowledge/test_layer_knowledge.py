"""Which layers of networks of different depths are compared."""

import pytest
import torch
from comparing import draw

from kd_env.knowledge.layer_knowledge import evenly_spaced


@pytest.mark.parametrize(
    ("depth", "count", "chosen"),
    [
        (5, 5, [0, 1, 2, 3, 4]),
        (5, 3, [0, 2, 4]),
        (5, 2, [0, 4]),
        (5, 1, [4]),
        (4, 3, [0, 2, 3]),  # the middle, 1.5, goes to the even one
        (7, 4, [0, 2, 4, 6]),
        (13, 5, [0, 3, 6, 9, 12]),
        (1, 1, [0]),
    ],
)
def test_layers_are_evenly_spaced_the_first_and_the_last_among_them(depth, count, chosen):
    layers = draw(2, depth, 3)
    assert torch.equal(evenly_spaced(layers, count), layers[:, chosen])
