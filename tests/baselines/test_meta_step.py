"""The gradient through tracked steps, against values worked out by hand and against central differences."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from baselines.meta_step import Descent, descend, meta_gradient
from kd_env.errors import InputError
from kd_env.knowledge.response import per_teacher


def test_one_step_of_a_linear_model_by_hand():
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    theta, x, teachers = torch.tensor([1.0], dtype=torch.float64), 2.0, torch.tensor([1.0, 5.0], dtype=torch.float64)

    def distillation(parameters):
        return (weights * (parameters[0] * x - teachers) ** 2).sum()

    def end(parameters):
        return (parameters[0] * x - 3.0).square().sum()

    # d/dtheta sum_k w_k (2 theta - t_k)^2 = sum_k w_k 4 (2 - t_k) = .5 * 4 * 1 + .5 * 4 * -3 = -4; theta' = 1 + .1 * 4 = 1.4
    assert descend([distillation], [theta], Descent(0.1))[0].item() == pytest.approx(1.4)
    # (2.8 - 3)^2 = .04; its slope in theta' is 2 * -.2 * 2 = -.8; theta' in w_k is -.1 * 4 (2 - t_k) = (-.4, 1.2)
    value, (gradient,) = meta_gradient([distillation], end, [theta], [weights], Descent(0.1))
    assert value.item() == pytest.approx(0.04)
    assert gradient.tolist() == pytest.approx([0.32, -0.96])
    assert theta.item() == 1.0
    assert not theta.requires_grad


def test_momentum_and_decay_by_hand():
    slope = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    start = [torch.tensor([1.0], dtype=torch.float64)]

    def objective(parameters):
        return (slope * parameters[0]).sum()

    # v1 = 2, x1 = .8; v2 = .5 * 2 + 2 = 3, x2 = .5: x2 = 1 - .1 (1 + 1.5) s
    value, (gradient,) = meta_gradient([objective] * 2, lambda parameters: parameters[0].sum(), start, [slope], Descent(0.1, momentum=0.5))
    assert (value.item(), gradient.item()) == pytest.approx((0.5, -0.25))
    # decay 1: v1 = 2 + 1 = 3, x1 = .7; v2 = 2 + .7 = 2.7, x2 = .43: x1 = .9 - .1 s, x2 = .9 x1 - .1 s, slope -.09 - .1
    value, (gradient,) = meta_gradient([objective] * 2, lambda parameters: parameters[0].sum(), start, [slope], Descent(0.1, 0.0, 1.0))
    assert (value.item(), gradient.item()) == pytest.approx((0.43, -0.19))


def tiny(seed=0):
    """A problem of K = 3 teachers, C = 4 classes and B = 6 examples for an MLP of 5 inputs and 7 units; weights of a linear net."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, teachers, labels = draw(6, 5), 2 * draw(6, 3, 4), torch.arange(6) % 4
    meta = draw(12, 3).mul(0.5).requires_grad_()
    parameters = [draw(5, 7), draw(7), draw(7, 4), draw(4)]

    def logits(at):
        return torch.tanh(inputs @ at[0] + at[1]) @ at[2] + at[3]

    def distillation(at):
        weights = (teachers.flatten(1) @ meta).softmax(1)
        return (weights * per_teacher(logits(at), teachers, 2.0)).sum(1).mean()

    def hard_label(at):
        return cross_entropy(logits(at), labels)

    return [distillation, distillation, hard_label], hard_label, parameters, meta


@pytest.mark.parametrize("descent", [Descent(0.3, 0.0), Descent(0.3, 0.9, 0.01)], ids=["plain", "momentum"])
def test_the_gradient_is_that_of_central_differences(descent):
    steps, end, parameters, meta = tiny()
    _, (gradient,) = meta_gradient(steps, end, parameters, [meta], descent)
    by_differences, size = torch.empty_like(gradient), 1e-5
    for index in range(meta.numel()):
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                meta.view(-1)[index] += sign * size
            values.append(end(descend(steps, parameters, descent)).item())
            with torch.no_grad():
                meta.view(-1)[index] -= sign * size
        by_differences.view(-1)[index] = (values[0] - values[1]) / (2 * size)
    assert gradient.norm() > 1e-3
    assert (gradient - by_differences).norm() / by_differences.norm() < 1e-5


def test_steps_are_those_of_torch():
    steps, _, parameters, _ = tiny()
    twin = [parameter.clone().requires_grad_() for parameter in parameters]
    optimizer = torch.optim.SGD(twin, lr=0.2, momentum=0.9, weight_decay=0.05)
    for objective in steps:
        optimizer.zero_grad()
        objective(twin).backward()
        optimizer.step()
    for ours, torchs in zip(descend(steps, parameters, Descent(0.2, 0.9, 0.05)), twin, strict=True):
        assert torch.allclose(ours, torchs, rtol=1e-12)


def test_what_no_step_depends_on_has_no_gradient():
    steps, end, parameters, meta = tiny()
    stranger = torch.ones(2, dtype=torch.float64, requires_grad=True)
    _, (gradient, none) = meta_gradient(steps, end, parameters, [meta, stranger], Descent(0.1))
    assert gradient.abs().sum() > 0
    assert none.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "name"), [((-0.1,), "inner_lr"), ((0.1, float("nan")), "momentum"), ((0.1, 0.9, True), "inner_weight")]
)
def test_what_is_no_rate_is_refused(options, name):
    with pytest.raises(InputError, match=rf"{name}.*expected a number of at least 0"):
        Descent(*options)
