"""The fit of a mixture: where L-BFGS diverges, the best parameters so far remain."""

import pytest
import torch

from baselines.mixture import minimise


def diverging(parameter, edge):
    """Fall towards the edge, and be no number beyond it."""
    return torch.where(parameter < edge, -parameter, torch.nan).sum()


@pytest.mark.parametrize("edge", [0.5, 3.0, 40.0])
def test_the_best_parameters_remain_where_the_loss_stops_being_a_number(edge):
    parameter, seen = torch.zeros(1, requires_grad=True), []

    def objective():
        seen.append(parameter.item())
        return diverging(parameter, edge)

    minimise([parameter], objective)
    assert any(value >= edge for value in seen)
    assert parameter.item() == max(value for value in seen if value < edge)


def test_parameters_stay_where_no_loss_is_a_number():
    parameter = torch.tensor([7.0], requires_grad=True)
    minimise([parameter], lambda: diverging(parameter, 1.0))
    assert parameter.item() == 7.0
