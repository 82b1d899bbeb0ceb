"""AMTML: its gate and the disagreement of teachers by hand, and the loss of each of its targets."""

import math

import pytest
import torch
from rule_problems import begun

from baselines import amtml
from kd_env.errors import InputError
from kd_env.types import ModelOutput


def test_the_gate_by_hand():
    gate = amtml.Gate(2, [5, 7, 3], 1)
    with torch.no_grad():
        gate.u.copy_(torch.tensor([1.0, 2.0]))
        gate.theta.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    features = torch.tensor([[math.log(2), math.log(3) / 2]])
    # scores u . (theta_k * f): ln 2, ln 3, ln 6
    # |u|^2 = 5, |theta|^2 = 4
    assert gate(ModelOutput(features, features))[0].tolist() == pytest.approx([2 / 11, 3 / 11, 6 / 11, 9.0])


def test_gates_of_equal_teachers_are_equal_and_of_one_teacher_one():
    gate = amtml.Gate(6, [4, 4], 2)
    with torch.no_grad():
        gate.theta[1] = gate.theta[0]
    features = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    assert gate(ModelOutput(features, features))[:, :2].flatten().tolist() == pytest.approx([0.5] * 18)
    assert amtml.Gate(6, [4], 1)(ModelOutput(features, features))[:, :1].tolist() == [[1.0]] * 9


def test_disagreement_by_hand():
    sure = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    weights = torch.tensor([[0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    # the mixture is (1/2, 1/2), each KL is ln 2
    values = amtml.disagreement(weights, sure)
    assert values.tolist() == pytest.approx([math.log(2)])
    (slope,) = torch.autograd.grad(values.sum(), weights)
    assert slope.isfinite().all()
    alike = torch.tensor([[[0.3, 0.7], [0.3, 0.7]]], dtype=torch.float64)
    assert amtml.disagreement(weights.detach(), alike).tolist() == pytest.approx([0.0])
    impossible = torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]], requires_grad=False)
    sure_of_first = torch.tensor([[1.0, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(amtml.disagreement(sure_of_first, impossible).sum(), sure_of_first)
    assert slope.isfinite().all()


@pytest.mark.parametrize(("name", "integrated"), [("amtml", True), ("amtml(target=each)", False)])
def test_amtml_is_taught_by_one_target_and_by_group_hints(name, integrated):
    env, policy = begun(name, precision="float64", temperature=2.0)
    run = env.distillation
    gate, output, batch = run.student_output().auxiliary[:, :-1], run.student_output(), run.observe()
    loss = run.per_example_loss(policy.act(None))
    p = (batch.teacher_logits / 2.0).softmax(2)
    log_q = (output.logits / 2.0).log_softmax(1)
    if integrated:
        mixture = (gate[..., None] * p).sum(1)
        response = 4.0 * (mixture * (mixture.log() - log_q)).sum(1)
    else:
        response = 4.0 * (gate[..., None] * p * (p.log() - log_q[:, None])).sum((1, 2))
    # one hidden layer is the last of every group, and the teachers' last layer is what their classifier reads
    hints = torch.stack([(output.projections["layers"][k][:, -1] - batch.teacher_features[k]).square().mean(1) for k in range(4)], 1)
    torch.testing.assert_close(loss, response + hints.mean(1))
    assert response.min() > 0.0
    network = run.student.network
    gradients = torch.autograd.grad(
        loss.mean(), [network.auxiliary_module.u, network.auxiliary_module.theta, *network.network.parameters()]
    )
    assert all(gradient.abs().max() > 0.0 for gradient in gradients), "gate, maps and body all learn"


def test_nothing_is_subtracted_from_a_response_that_is_left_out():
    env, policy = begun("amtml", precision="float64", knowledge="response(skip_epochs=2),layer(grouped=true)")
    decision = policy.act(None)
    assert (decision.penalty == 0.0).all()
    assert env.distillation.per_example_loss(decision).min() >= 0.0


def test_amtml_refuses_another_target_and_a_setting_without_its_gate():
    with pytest.raises(InputError, match=r"amtml\(target='both'\): expected integrated or each"):
        begun("amtml(target=both)")
    for name in ("amtml", "uncertainty"):
        _, policy = begun(name, auxiliary_module="")
        with pytest.raises(
            InputError, match=r"auxiliary_module='': policy '\w+' learns with its own, baselines\.\w+:\w+; leave auxiliary_module out"
        ):
            policy.act(None)
