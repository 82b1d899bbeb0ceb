"""Rowwise types: one call serves all teachers."""

import itertools

import pytest
import torch
from comparing import draw, random_context, random_output

from kd_env.knowledge import LossContext
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.response import Response
from kd_env.knowledge.rowwise import for_all_teachers


@pytest.mark.parametrize("kind", [Response(), TargetClass(), NonTargetClass()])
@pytest.mark.parametrize("form", ["float", "tensor"])
def test_one_call_serves_all_teachers_at_any_temperature(kind, form):
    output, teachers = random_output(), draw(5, 3, 4, seed=9)
    temperature = torch.linspace(0.5, 4.0, 5, dtype=torch.float64)[:, None] if form == "tensor" else 2.0
    context = LossContext(temperature, random_context().labels)
    together = kind.loss_in_context(for_all_teachers(output), teachers, context.for_all_teachers())
    assert together.shape == (5, 3)
    for b, k in itertools.product(range(5), range(3)):
        row = output._replace(logits=output.logits[b : b + 1])
        alone = LossContext(float(temperature[b]) if form == "tensor" else temperature, context.labels[b : b + 1])
        assert float(kind.loss_in_context(row, teachers[b : b + 1, k], alone)) == pytest.approx(float(together[b, k]), rel=1e-12)
