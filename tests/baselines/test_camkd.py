"""CAMKD's weights and its whole loss against values worked out by hand."""

import pytest
import torch
from rule_problems import begun, env_and_policy, weights_of
from torch.nn.functional import linear
from weighing import with_probability

from baselines import camkd


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


def test_camkd_feature_weights_by_hand():
    hints = [torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)]
    logits = [with_probability(0.8, 2), with_probability(0.2, 2)]
    classifiers = [
        (torch.tensor([[logits[0][0] - 1.0, 0.0], [0.0, 9.0]], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)),
        (torch.tensor([[5.0, 5.0, logits[1][0]], [5.0, 5.0, 0.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)),
    ]
    # each hint through its classifier gives the label .8 and .2: 1/p = 1.25 and 5, softmax(c') = (.2, .8), weights 1 less that
    assert camkd.feature_weights(hints, classifiers, torch.tensor([0]))[0].tolist() == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("detach", [False, True])
def test_camkd_whole_by_hand(detach):
    pair = "digits/experts/upright,digits/experts/inverted"
    env, policy = begun(f"camkd(detach={detach})", pair, precision="float64", temperature=4.0)
    run, decision = env.distillation, policy.act(None)
    batch, output = run.observe(), run.student_output()
    maps = list(run.student.network.maps)
    mapped = [output.features @ matrix for matrix in maps]
    heads = [teacher.network.classifier for teacher in env.selection.pool.teachers]
    scales = [teacher.logit_scale for teacher in env.selection.pool.teachers]
    through = [s * linear(hint, h.weight.double(), h.bias.double()) for s, hint, h in zip(scales, mapped, heads, strict=True)]
    right = torch.stack([logits.softmax(1)[torch.arange(32), batch.labels] for logits in through], 1)  # [B, 2]
    v = (1.0 / right).flip(1) / (1.0 / right).sum(1, keepdim=True)  # of two, 1 - softmax(c') is the other's 1/p
    torch.testing.assert_close(decision.weights["hint"].detach(), v.detach(), rtol=1e-5, atol=1e-7)
    assert decision.weights["hint"].requires_grad is not detach
    hints = torch.stack([(hint - features).square().mean(1) for hint, features in zip(mapped, batch.teacher_features, strict=True)], 1)
    expected = (decision.weights["response"] * run.per_teacher_loss("response", 4.0)).sum(1) + 50 * (
        (v.detach() if detach else v) * hints
    ).sum(1)
    loss = run.per_example_loss(decision)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    parameters = [run.student.network.network.body[0].weight, *maps]
    for gradient, by_hand in zip(
        *(torch.autograd.grad(value.mean(), parameters, retain_graph=True) for value in (loss, expected)), strict=True
    ):
        torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-7)
