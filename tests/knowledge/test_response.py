"""The response against values worked out by hand."""

import math

import pytest
import torch
from comparing import draw, output_of, tensor

from kd_env.knowledge import LossContext
from kd_env.knowledge.response import Response, per_teacher

RESPONSE = Response()
LN2 = math.log(2.0)

HAND = {  # p, q, KL(p || q), KL(q || p)
    "C=2": ([1 / 2, 1 / 2], [1 / 4, 3 / 4], math.log(4 / 3) / 2, math.log(27 / 16) / 4),
    "C=3": ([1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2], LN2 / 4, LN2 / 4),
    "C=4": ([1 / 4, 1 / 4, 1 / 4, 1 / 4], [1 / 2, 1 / 4, 1 / 8, 1 / 8], LN2 / 4, LN2 / 4),
    "C=5": ([1 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 5], [3 / 5, 1 / 10, 1 / 10, 1 / 10, 1 / 10], math.log(16 / 3) / 5, math.log(27 / 4) / 5),
}


def loss(student, teacher, temperature=1.0):
    """The loss of student logits against teacher logits."""
    context = LossContext(temperature)
    return RESPONSE.loss_in_context(output_of(logits=student), RESPONSE.target(output_of(logits=teacher)), context)


def logits_of(probabilities, temperature=1.0):
    """Logits whose softmax at ``temperature`` is ``probabilities``; the constant must not matter."""
    return temperature * tensor(probabilities).log() + 1.7


@pytest.mark.parametrize("case", HAND)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_response_is_the_kl_times_the_squared_temperature(case, temperature):
    p, q, forward, backward = HAND[case]
    at = [logits_of(probabilities, temperature) for probabilities in (p, q)]
    assert float(loss(at[1], at[0], temperature)) == pytest.approx(temperature**2 * forward, rel=1e-12)
    assert float(loss(at[0], at[1], temperature)) == pytest.approx(temperature**2 * backward, rel=1e-12)


@pytest.mark.parametrize(("num_teachers", "num_classes"), [(2, 2), (2, 5), (3, 3), (3, 4)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_all_teachers_in_one_call_equal_a_loop_in_plain_numbers(num_teachers, num_classes, temperature):
    teachers, student = draw(6, num_teachers, num_classes), draw(6, num_classes, seed=1)
    together = loss(student[:, None], teachers, temperature)
    assert together.shape == (6, num_teachers)
    assert per_teacher(student, teachers, temperature).equal(together)
    for b in range(6):
        q = [math.exp(z / temperature) for z in student[b].tolist()]
        for k in range(num_teachers):
            p = [math.exp(z / temperature) for z in teachers[b, k].tolist()]
            kl = sum(x / sum(p) * math.log((x / sum(p)) / (y / sum(q))) for x, y in zip(p, q, strict=True))
            assert float(together[b, k]) == pytest.approx(temperature**2 * kl, rel=1e-10)
            alone = loss(student[b], teachers[b, k], temperature)
            assert float(alone) == pytest.approx(float(together[b, k]), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_response_is_zero_at_equality_and_above_it_elsewhere(temperature):
    logits = 5 * draw(20, 7)
    shifted = logits + draw(20, 1, seed=2)
    assert loss(logits, shifted, temperature).abs().max() < 1e-13
    assert loss(logits, logits.flip(1), temperature).min() > 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_gradient_of_response_is_tau_times_q_minus_p(temperature, num_classes):
    student, teacher = draw(8, num_classes).requires_grad_(), draw(8, num_classes, seed=1)
    (gradient,) = torch.autograd.grad(loss(student, teacher, temperature).sum(), student)
    expected = temperature * ((student / temperature).softmax(1) - (teacher / temperature).softmax(1))
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-10, atol=1e-14)


def test_response_to_extreme_logits_is_finite():
    far = torch.tensor([[300.0, -300.0, 0.0]])
    assert float(loss(-far, far)) == pytest.approx(600.0)


def test_a_temperature_for_each_example_acts_on_its_own_row():
    student, teacher, temperatures = draw(3, 4), draw(3, 4, seed=1), [0.5, 2.0, 7.0]
    together = loss(student, teacher, tensor(temperatures)[:, None])
    alone = [float(loss(student[b], teacher[b], temperature)) for b, temperature in enumerate(temperatures)]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)


def test_it_gives_one_value_per_example():
    assert loss(draw(4, 3), draw(4, 3, seed=1), 2.0).shape == (4,)


def test_without_a_context_the_temperature_is_1():
    student, teacher = output_of(logits=draw(4, 3)), draw(4, 3, seed=1)
    assert RESPONSE.loss(student, teacher).equal(loss(student.logits, teacher))
