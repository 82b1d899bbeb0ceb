"""Norms and directions."""

import pytest
import torch

from kd_env.knowledge.vectors import norm, unit


@pytest.mark.parametrize("scale", [1e-11, 1e-6, 1.0, 1e15])
def test_a_vector_has_its_direction_at_any_size(scale):
    vector = torch.tensor([[3.0, -4.0]], requires_grad=True)
    torch.testing.assert_close(norm(scale * vector), torch.tensor([[5.0 * scale]]))
    torch.testing.assert_close(unit(scale * vector), torch.tensor([[0.6, -0.8]]))
    (gradient,) = torch.autograd.grad(unit(scale * vector).sum(), vector)
    torch.testing.assert_close(
        gradient, torch.tensor([[0.224, 0.168]]), rtol=1e-5, atol=0
    )  # (1, 1) less its share along the vector, over 5
