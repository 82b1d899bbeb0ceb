"""CAMKD's weights against values worked out by hand."""

import math

import pytest
import torch
from rule_problems import env_and_policy, weights_of

from baselines import camkd


def with_probability(p, classes=4):
    """Logits that give class 0 the probability ``p``."""
    return [math.log(p / (1 - p) * (classes - 1)), *[0.0] * (classes - 1)]


def test_camkd_of_two_teachers_by_hand():
    logits = torch.tensor([[with_probability(0.8), with_probability(0.2)]], dtype=torch.float64)
    # exp(c_k) = 1/p_k, so softmax(c) = (1/.8, 1/.2) / (1/.8 + 1/.2) = (.2, .8); 1 - that, over K - 1 = 1
    assert camkd.weights(logits, torch.tensor([0]))[0].tolist() == pytest.approx([0.8, 0.2])


def test_camkd_of_three_teachers_by_hand():
    logits = torch.tensor([[with_probability(p) for p in (0.5, 0.25, 0.125)]], dtype=torch.float64)
    # 1/p = (2, 4, 8), softmax(c) = (1, 2, 4)/7, weights (6, 5, 3)/14
    assert camkd.weights(logits, torch.tensor([0]))[0].tolist() == pytest.approx([6 / 14, 5 / 14, 3 / 14])


@pytest.mark.parametrize("teachers", [2, 3, 7])
def test_camkd_is_on_the_simplex_and_follows_a_permutation(teachers):
    generator = torch.Generator().manual_seed(teachers)
    logits = 5 * torch.randn(50, teachers, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(6, (50,), generator=generator)
    weights = camkd.weights(logits, labels)
    assert weights.shape == (50, teachers)
    assert (weights >= 0).all()
    assert weights.max() <= 1 / (teachers - 1) + 1e-6
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 50, abs=1e-5)
    order = torch.randperm(teachers, generator=generator)
    assert torch.allclose(camkd.weights(logits[:, order], labels), weights[:, order], atol=1e-6)
    assert (weights.argmax(1) == camkd.teacher_ce(logits, labels).argmin(1)).all()


def test_camkd_of_extreme_teachers_is_finite():
    logits = torch.tensor([[[1e4, 0.0], [-1e4, 0.0]]])
    assert camkd.weights(logits, torch.tensor([0]))[0].tolist() == [1.0, 0.0]


def test_camkd_needs_two_teachers():
    with pytest.raises(ValueError, match="camkd needs at least two teachers"):
        camkd.weights(torch.zeros(3, 1, 4), torch.zeros(3, dtype=torch.int64))


def test_camkd_acts_on_its_formula():
    env, policy = env_and_policy("camkd_logits")
    weights, batch = weights_of(env, policy)
    expected = camkd.weights(batch.teacher_logits, batch.labels)
    # the action cannot say less than exp(-20) of the largest weight
    assert weights == pytest.approx(expected.numpy(), abs=1e-6)
