"""The response and the label against values worked out by hand."""

import math

import pytest
import torch

from kd_env.knowledge import label
from kd_env.knowledge.response import Response, per_teacher
from kd_env.types import ModelOutput

RESPONSE = Response()
LN2 = math.log(2.0)

HAND = {  # p, q, KL(p || q), KL(q || p)
    "C=2": ([1 / 2, 1 / 2], [1 / 4, 3 / 4], math.log(4 / 3) / 2, math.log(27 / 16) / 4),
    "C=3": ([1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2], LN2 / 4, LN2 / 4),
    "C=4": ([1 / 4, 1 / 4, 1 / 4, 1 / 4], [1 / 2, 1 / 4, 1 / 8, 1 / 8], LN2 / 4, LN2 / 4),
    "C=5": ([1 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 5], [3 / 5, 1 / 10, 1 / 10, 1 / 10, 1 / 10], math.log(16 / 3) / 5, math.log(27 / 4) / 5),
}


def student(logits, temperature=1.0):
    return ModelOutput(logits, torch.zeros(*logits.shape[:-1], 1, dtype=logits.dtype), temperature=temperature)


def logits_of(probabilities, temperature=1.0):
    """Logits whose softmax at ``temperature`` is ``probabilities``; the constant must not matter."""
    return temperature * torch.tensor(probabilities, dtype=torch.float64).log() + 1.7


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", HAND)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_response_is_the_kl_times_the_squared_temperature(case, temperature):
    p, q, forward, backward = HAND[case]
    at = [student(logits_of(one, temperature), temperature) for one in (p, q)]
    assert float(RESPONSE.loss(at[1], RESPONSE.target(at[0]))) == pytest.approx(temperature**2 * forward, rel=1e-12)
    assert float(RESPONSE.loss(at[0], RESPONSE.target(at[1]))) == pytest.approx(temperature**2 * backward, rel=1e-12)


@pytest.mark.parametrize(("num_teachers", "num_classes"), [(2, 2), (2, 5), (3, 3), (3, 4)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_all_teachers_in_one_call_equal_a_loop_in_plain_numbers(num_teachers, num_classes, temperature):
    teachers, own = draw(6, num_teachers, num_classes), draw(6, num_classes, seed=1)
    together = RESPONSE.loss(student(own[:, None], temperature), teachers)
    assert together.shape == (6, num_teachers)
    assert per_teacher(own, teachers, temperature).equal(together)
    for b in range(6):
        q = [math.exp(z / temperature) for z in own[b].tolist()]
        for k in range(num_teachers):
            p = [math.exp(z / temperature) for z in teachers[b, k].tolist()]
            kl = sum(x / sum(p) * math.log((x / sum(p)) / (y / sum(q))) for x, y in zip(p, q, strict=True))
            assert float(together[b, k]) == pytest.approx(temperature**2 * kl, rel=1e-10)
            alone = RESPONSE.loss(student(own[b], temperature), teachers[b, k])
            assert float(alone) == pytest.approx(float(together[b, k]), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_response_is_zero_at_equality_and_above_it_elsewhere(temperature):
    logits = 5 * draw(20, 7)
    shifted = logits + draw(20, 1, seed=2)
    assert RESPONSE.loss(student(logits, temperature), shifted).abs().max() < 1e-13
    assert RESPONSE.loss(student(logits, temperature), logits.flip(1)).min() > 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_gradient_of_response_is_tau_times_q_minus_p(temperature, num_classes):
    own, teacher = draw(8, num_classes).requires_grad_(), draw(8, num_classes, seed=1)
    (gradient,) = torch.autograd.grad(RESPONSE.loss(student(own, temperature), teacher).sum(), own)
    expected = temperature * ((own / temperature).softmax(1) - (teacher / temperature).softmax(1))
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-10, atol=1e-14)


def test_response_to_extreme_logits_is_finite():
    far = torch.tensor([[300.0, -300.0, 0.0]])
    loss = RESPONSE.loss(student(-far), far)
    assert float(loss) == pytest.approx(600.0)


@pytest.mark.parametrize("case", HAND)
def test_label_is_the_cross_entropy_whatever_the_temperature(case):
    p, q, *_ = HAND[case]
    both = torch.stack([logits_of(p), logits_of(q)])
    for y in range(len(p)):
        for temperature in (1.0, 4.0):
            loss = label.loss(student(both, temperature), torch.tensor([y, y]))
            assert loss.tolist() == pytest.approx([-math.log(p[y]), -math.log(q[y])], rel=1e-12)


def test_gradient_of_label_is_q_minus_the_one_hot_label():
    own, labels = draw(5, 3).requires_grad_(), torch.tensor([0, 1, 2, 1, 0])
    (gradient,) = torch.autograd.grad(label.loss(student(own), labels).sum(), own)
    torch.testing.assert_close(gradient, (own.softmax(1) - torch.nn.functional.one_hot(labels, 3)).detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", HAND)
@pytest.mark.parametrize("num_teachers", [1, 2, 3])
def test_teacher_ce_by_hand(case, num_teachers):
    p, q, *_ = HAND[case]
    rows = [p, q, p][:num_teachers]
    logits = torch.stack([logits_of(row) for row in rows]).expand(len(p), -1, -1)  # [C, K, C], one instance a label
    expected = [[-math.log(row[y]) for row in rows] for y in range(len(p))]
    found = label.teacher_ce(logits, torch.arange(len(p)))
    assert found.shape == (len(p), num_teachers)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_temperature_for_each_example_acts_on_its_own_row():
    own, teacher, temperatures = draw(3, 4), draw(3, 4, seed=1), [0.5, 2.0, 7.0]
    together = RESPONSE.loss(student(own, torch.tensor(temperatures, dtype=torch.float64)[:, None]), teacher)
    alone = [float(RESPONSE.loss(student(own[b], temperature), teacher[b])) for b, temperature in enumerate(temperatures)]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)


def test_each_gives_a_value_an_example():
    own = student(draw(4, 3), 2.0)
    assert RESPONSE.loss(own, draw(4, 3, seed=1)).shape == (4,)
    assert label.loss(own, torch.tensor([0, 1, 2, 0])).shape == (4,)
