"""The prior: CKA and losses worked out by hand, and which channels are filled in."""

import pytest
import torch
from comparing import draw, loss_of, tensor

from kd_env.knowledge.hint import Hint
from kd_env.knowledge.prior import GOLDEN_RATIO, PriorSurrogate, cka, entry_shares


def test_cka_by_hand():
    first = tensor([[1.0], [-1.0], [0.0]])
    assert float(cka(first, -3.0 * first + 5.0)) == pytest.approx(1.0)
    # Gram matrices of (1, -1, 0) and (1, 1, -2), which are orthogonal: (1^T 2)^2 = 0
    assert float(cka(first, tensor([[1.0], [1.0], [-2.0]]))) == pytest.approx(0.0, abs=1e-15)
    # (1, -1, 0) and (0, 1, -1): (-1)^2 over 2 * 2
    assert float(cka(first, tensor([[0.0], [1.0], [-1.0]]))) == pytest.approx(0.25)
    assert float(cka(first, tensor([[2.0], [2.0], [2.0]]))) == 1.0, "nothing to compare"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_cka_is_that_of_the_features_and_of_any_size(scale):
    first, other = draw(8, 3), draw(8, 5, seed=1)
    centred, of_other = first - first.mean(0), other - other.mean(0)
    expected = (centred.T @ of_other).norm() ** 2 / ((centred.T @ centred).norm() * (of_other.T @ of_other).norm())
    torch.testing.assert_close(cka(scale * first, other), expected)
    torch.testing.assert_close(cka((scale * first).float(), other.float()), expected.float(), rtol=1e-4, atol=1e-6)


def test_prior_by_hand():
    # (0, 1, -1) moved by .9: CKA .25 as above, so three quarters are filled in; the shares are |t| mod 1: .9, .9, .1
    student, teacher = tensor([[1.0], [-1.0], [0.0]]), tensor([[0.9], [1.9], [-0.1]])
    assert entry_shares(teacher).flatten().tolist() == pytest.approx([0.9, 0.9, 0.1])
    assert loss_of(PriorSurrogate(), student, teacher).tolist() == pytest.approx([0.01, 8.41, 0.0])
    apart = tensor([[1.0], [1.0], [-2.0]])
    assert loss_of(PriorSurrogate(), student, apart).tolist() == [0.0] * 3, "not similar: all of it is filled in"


def test_where_features_agree_the_prior_is_empty_and_the_loss_is_the_hint():
    teacher = draw(6, 5)
    student = 2.0 * teacher + 1.0
    assert float(cka(student, teacher)) == pytest.approx(1.0)
    torch.testing.assert_close(loss_of(PriorSurrogate(), student, teacher), loss_of(Hint(), student, teacher))
    assert loss_of(PriorSurrogate(), student[:1], teacher[:1]).equal(loss_of(Hint(), student[:1], teacher[:1])), "one example has no CKA"


def test_the_nearer_the_features_the_more_is_learned():
    teacher, other = draw(200, 8), draw(200, 8, seed=1)  # few examples of many channels look alike by chance
    learned = []
    for nearness in (0.0, 0.5, 1.0, 10.0):
        student = nearness * teacher + other
        part = student.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(PriorSurrogate(), part, teacher).sum(), part)
        learned.append(float((gradient != 0.0).double().mean()))
        assert learned[-1] == pytest.approx(float(cka(student, teacher)), abs=0.05), "evenly spread shares"
    assert learned == sorted(learned)
    assert learned[0] < 0.15
    assert learned[-1] > 0.9


def test_shares_are_even_in_each_row_and_differ_between_rows():
    shares = entry_shares(draw(40, 21))
    gaps = shares.sort(1).values.diff(dim=1)
    assert float(gaps.max()) < 2.7 / 21, "multiples of the golden ratio leave no gap much larger than the mean"
    assert float(gaps.min()) > 0.35 / 21
    torch.testing.assert_close((shares[:, 1] - shares[:, 0]) % 1.0, torch.full((40,), GOLDEN_RATIO, dtype=torch.float64))
    assert ((shares < 0.5).any(0) & (shares >= 0.5).any(0)).all(), "every channel is learned from some examples and filled in for others"
