"""The hard label against values worked out by hand."""

import math

import pytest
import torch
from comparing import draw, output_of, tensor

from kd_env.distillation import Distillation
from kd_env.distillation.settings import distillation_settings
from kd_env.knowledge import label

HAND = {  # p, q
    "C=2": ([1 / 2, 1 / 2], [1 / 4, 3 / 4]),
    "C=3": ([1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]),
    "C=4": ([1 / 4, 1 / 4, 1 / 4, 1 / 4], [1 / 2, 1 / 4, 1 / 8, 1 / 8]),
    "C=5": ([1 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 5], [3 / 5, 1 / 10, 1 / 10, 1 / 10, 1 / 10]),
}


def logits_of(probabilities):
    """Logits whose softmax is ``probabilities``; the constant must not matter."""
    return tensor(probabilities).log() + 1.7


@pytest.mark.parametrize("case", HAND)
def test_label_is_the_cross_entropy(case):
    p, q = HAND[case]
    both = torch.stack([logits_of(p), logits_of(q)])
    for y in range(len(p)):
        loss = label.loss(output_of(logits=both), torch.tensor([y, y]))
        assert loss.tolist() == pytest.approx([-math.log(p[y]), -math.log(q[y])], rel=1e-12)


def test_gradient_of_label_is_q_minus_the_one_hot_label():
    student, labels = draw(5, 3).requires_grad_(), torch.tensor([0, 1, 2, 1, 0])
    (gradient,) = torch.autograd.grad(label.loss(output_of(logits=student), labels).sum(), student)
    torch.testing.assert_close(gradient, (student.softmax(1) - torch.nn.functional.one_hot(labels, 3)).detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", HAND)
@pytest.mark.parametrize("num_teachers", [1, 2, 3])
def test_teacher_ce_by_hand(case, num_teachers):
    p, q = HAND[case]
    rows = [p, q, p][:num_teachers]
    logits = torch.stack([logits_of(row) for row in rows]).expand(len(p), -1, -1)  # [C, K, C], one instance per label
    expected = [[-math.log(row[y]) for row in rows] for y in range(len(p))]
    losses = label.teacher_ce(logits, torch.arange(len(p)))
    assert losses.shape == (len(p), num_teachers)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_temperature_of_a_decision_does_not_matter(digits_data, temperature):
    run = Distillation(digits_data, distillation_settings(digits_data.task, student="mlp(width=8)", batch_size=4, updates=3), 0)
    batch = run.observe()
    expected = torch.nn.functional.cross_entropy(batch.student.logits, batch.labels, reduction="none")
    torch.testing.assert_close(run.per_teacher_loss("label", temperature)[:, 0].detach(), expected)


def test_it_gives_one_value_per_example():
    assert label.loss(output_of(logits=draw(4, 3)), torch.tensor([0, 1, 2, 0])).shape == (4,)
