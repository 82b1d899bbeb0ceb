"""Optimal transport with entropy: marginals, known plans in both limits, and the condition that a plan is optimal."""

import pytest
import torch
from scipy.optimize import linprog

from kd_env.teachers.sinkhorn import transport

GENERATOR = torch.Generator().manual_seed(0)
COST = torch.rand(4, 3, generator=GENERATOR, dtype=torch.float64)
ROWS, COLUMNS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 10.0])
def test_the_marginals_are_kept_and_the_plan_is_a_scaled_kernel(epsilon):
    plan, cost = transport(COST, ROWS, COLUMNS, epsilon)
    torch.testing.assert_close(plan.sum(1), ROWS, atol=1e-8, rtol=0.0)
    torch.testing.assert_close(plan.sum(0), COLUMNS, atol=1e-8, rtol=0.0)
    assert cost == pytest.approx((plan * COST).sum().item())
    potentials = plan.log() + COST / epsilon  # of a scaled kernel, a row term plus a column term
    interaction = potentials - potentials[:1] - potentials[:, :1] + potentials[0, 0]
    assert interaction.abs().max() < 1e-6 / epsilon


def test_without_entropy_it_is_the_plan_of_a_linear_programme():
    constraints = [[float(i == row) for i in range(4) for _ in range(3)] for row in range(4)]
    constraints += [[float(j == column) for _ in range(4) for j in range(3)] for column in range(3)]
    exact = linprog(COST.numpy().ravel(), A_eq=constraints, b_eq=[*ROWS.tolist(), *COLUMNS.tolist()])
    assert transport(COST, ROWS, COLUMNS, 0.005).cost == pytest.approx(exact.fun, abs=2e-3)
    assert transport(COST, ROWS, COLUMNS, 0.005).cost > exact.fun - 1e-8


def test_with_much_entropy_it_is_the_product_of_the_marginals():
    torch.testing.assert_close(transport(COST, ROWS, COLUMNS, 1e6).plan, ROWS[:, None] * COLUMNS, atol=1e-5, rtol=0.0)


def test_an_assignment_is_found_and_a_row_without_mass_gets_none():
    cost = 1.0 - torch.eye(3, dtype=torch.float64)[[2, 0, 1]]
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    plan, value = transport(cost, third, third, 0.01)
    assert plan.argmax(1).tolist() == [2, 0, 1]
    assert value == pytest.approx(0.0, abs=1e-6)
    empty = transport(torch.cat([cost, torch.zeros(1, 3).double()]), torch.cat([third, torch.zeros(1).double()]), third, 0.05).plan
    assert empty[3].sum() == 0.0
    assert empty.isfinite().all()
