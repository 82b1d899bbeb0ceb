"""Credit against autograd pair by pair, and what asking for it costs and leaves as it is."""

import copy
import itertools

import numpy as np
import pytest
import torch
from credited import STUDENTS, response, start, taught
from pairwise import chosen, pairwise
from torch.nn.functional import cross_entropy

from kd_env.distillation.reward_meter import GradientOptions
from kd_env.envs import credit
from kd_env.types import Decision


def held_out_gradient(run):
    """By hand, on all labelled reward examples, without dropout."""
    network, (rows,) = run.student.network.eval(), run.reward_split.positions
    inputs = run.student.cast({name: tensor[rows] for name, tensor in run.data.inputs["reward"].items()})
    loss = cross_entropy(network(**inputs).logits, run.data.labels["reward"][rows])
    gradient = torch.autograd.grad(loss, list(network.parameters()))
    network.train()
    return gradient


def scales(run):
    """By hand: what Adam divides a gradient by; 1 for SGD."""
    values = []
    for parameter in run.student.network.parameters():
        state = run.student.optimizer.state.get(parameter, {})
        if "exp_avg_sq" in state:
            values.append(1.0 / ((state["exp_avg_sq"] / (1 - 0.999 ** int(state["step"]))).sqrt() + 1e-8))
        else:
            values.append(1.0)
    return values


def pair_by_pair(run, only_head=False):
    """By hand: 1 / B * rate * <scale * held-out gradient, grad KL_bk>, one autograd call per pair, on the retained pass."""
    parameters = list(run.student.network.parameters())
    head = {id(parameter) for parameter in run.student.classifier.parameters()}
    rate = run.student.options.rate(run.update[0] / run.settings.updates)
    direction = [scale * value for scale, value in zip(scales(run), held_out_gradient(run), strict=True)]
    losses = run.per_teacher_loss("response", run.settings.temperature)
    values = torch.zeros_like(losses)
    for b, k in np.ndindex(*losses.shape):
        gradients = torch.autograd.grad(losses[b, k], parameters, retain_graph=True)
        inner = [(v * g).sum() for v, g, p in zip(direction, gradients, parameters, strict=True) if not only_head or id(p) in head]
        values[b, k] = rate * sum(inner) / run.settings.batch_size
    return values.detach()


OPTIMIZERS = ["adam(lr=0.01)", "sgd(lr=0.1,warmup=0.5)", "adamw(lr=0.01,weight_decay=0.1,decay=linear)"]


@pytest.mark.parametrize(
    ("case", "optimizer"),
    chosen(
        itertools.product(STUDENTS, OPTIMIZERS),
        [*itertools.product(STUDENTS[:1], OPTIMIZERS), *zip(STUDENTS[1:], OPTIMIZERS, strict=True), (STUDENTS[3], OPTIMIZERS[0])],
    ),
)
def test_first_order_is_the_inner_product_of_each_pair(request, case, optimizer):
    data, student = case
    keywords = {"student": student, "optimizer": optimizer, "kd_weight": 0.7, "temperature": 3.0}
    selection = taught(start(request.getfixturevalue(data), **keywords), 4)
    expected = pair_by_pair(selection.distillation)
    values = response(credit.first_order, selection)
    assert values.shape == (5, selection.num_teachers)
    assert expected.abs().max() > 1e-6
    # Attention's key biases have no gradient but rounding, which Adam's scale of up to 1e8 makes visible.
    tolerance = 1e-6 if optimizer.startswith("adam") and student.startswith("tiny") else 1e-8
    torch.testing.assert_close(values, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(("case", "num_students", "precision"), pairwise(STUDENTS, [1, 3], ["float32", "float64"]))
def test_a_difference_is_nearly_first_order(request, case, num_students, precision):
    keywords = {"student": case[1], "optimizer": "sgd(lr=0.1)", "num_students": num_students, "precision": precision}
    selection = taught(start(request.getfixturevalue(case[0]), **keywords), 4)
    expected, values = response(credit.first_order, selection), response(credit.difference, selection)
    assert expected.norm() > 1e-4
    assert float((values - expected).norm() / expected.norm()) < 0.01


def test_the_largest_step_is_that_of_the_first_gradient_after_zeros():
    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=1.0)
    parameter.grad = torch.zeros_like(parameter)
    adam.step()
    adam.state[parameter]["step"].fill_(1e6)  # as after a million gradients that are zero
    parameter.grad = torch.full_like(parameter, -0.7)
    adam.step()
    assert parameter.item() == pytest.approx(credit.MAX_STEP, rel=1e-6)


@pytest.mark.parametrize("num_students", [1, 2])
def test_a_difference_is_along_steps_that_adam_takes(digits_data, num_students):
    """By hand: the direction, limited to sqrt(10) learning rates, in forward mode. Some entries are limited, most are not."""
    keywords = {"student": "mlp(width=8,dropout=0.3)", "optimizer": "adam(lr=0.01)", "num_students": num_students}
    selection = taught(start(digits_data, **keywords), 4)
    run, limit = selection.distillation, 10**0.5 * 0.01
    gradient = selection.meter.held_out_gradient(run.student, run.update)
    unlimited = [0.01 * scale * value for scale, value in zip(run.student.preconditioner(), gradient, strict=True)]
    share = torch.cat([(tensor.abs() > limit).flatten() for tensor in unlimited]).double().mean()
    assert 0.001 < share < 0.5
    limited = tuple(tensor.clamp(-limit, limit) for tensor in unlimited)
    with run.dropout.replay():
        _, along = torch.func.jvp(
            lambda *parameters: run.student.forward_at(parameters, run.batch_inputs()).logits,
            tuple(parameter.detach() for parameter in run.student.parameters),
            limited,
        )
    batch = run.observe()
    q, p = (batch.student.logits / 2).softmax(1), (batch.teacher_logits / 2).softmax(2)
    expected = 2 * ((q[:, None] - p) * along[:, None]).sum(2) / 5
    torch.testing.assert_close(response(credit.difference, selection), expected, rtol=0, atol=0.005 * float(expected.abs().max()))


def test_a_difference_of_a_gradient_that_is_zero_is_zero(digits_data):
    selection = taught(start(digits_data, student="mlp(width=8)"), 1)
    gradient = selection.meter.held_out_gradient(selection.distillation.student, selection.distillation.update, GradientOptions())
    selection.meter.gradient = [torch.zeros_like(tensor) for tensor in gradient]
    assert response(credit.difference, selection).eq(0.0).all()


@pytest.mark.parametrize(
    ("case", "updates"), chosen(itertools.product(STUDENTS, [0, 4]), [(STUDENTS[0], 0), *((case, 4) for case in STUDENTS)])
)
def test_head_is_first_order_of_the_classifier_alone(request, case, updates):
    data, student = case
    selection = taught(start(request.getfixturevalue(data), student=student, optimizer="adam(lr=0.01)", kd_weight=0.7), updates)
    expected = pair_by_pair(selection.distillation, only_head=True)
    torch.testing.assert_close(response(credit.head, selection), expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_the_formula_in_plain_sums(digits_data):
    """r_bk = tau (q - p) . (J v), with J v from a finite difference of the student's logits along v."""
    selection = taught(start(digits_data, student="mlp(width=8)", optimizer="sgd(lr=0.5)", temperature=3.0), 2)
    run, step, moved = selection.distillation, 1e-5, []
    for sign in (1, -1):
        network, direction = copy.deepcopy(run.student.network), held_out_gradient(run)
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), direction, strict=True):
                parameter += sign * step * value
            moved.append(network(**run.student.cast(run.batch_inputs())).logits)
    along = (moved[0] - moved[1]) / (2 * step)  # [B, C]
    batch = run.observe()
    expected = torch.zeros(5, run.num_teachers, dtype=torch.float64)
    for b, k in np.ndindex(*expected.shape):
        q, p = (batch.student.logits[b] / 3).softmax(0), (batch.teacher_logits[b, k] / 3).softmax(0)
        expected[b, k] = 0.5 / 5 * 3.0 * sum((q[c] - p[c]) * along[b, c] for c in range(10))
    torch.testing.assert_close(response(credit.first_order, selection), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("case", "kind"),
    chosen(
        itertools.product(STUDENTS, credit.CREDITS),
        [*itertools.product(STUDENTS[1:2], credit.CREDITS), *((case, "first_order") for case in STUDENTS if case != STUDENTS[1])],
    ),
)
def test_asking_for_credit_changes_nothing(request, case, kind):
    """Dropout is replayed, not drawn anew: the student is the same to the last bit."""
    data, student = request.getfixturevalue(case[0]), case[1]
    keywords = {"student": student, "batch_size": 3, "precision": "float32", "optimizer": "adam(lr=0.01)"}
    silent, asked = start(data, **keywords), start(data, **keywords)
    for update in range(3):
        taught(silent, 1, seed=update)
        values = response(credit.CREDITS[kind], asked)
        assert torch.equal(values, response(credit.CREDITS[kind], asked)), "asking twice gives the same"
        taught(asked, 1, seed=update)
    students = silent.distillation.student, asked.distillation.student
    for parameter, expected in zip(*(student.network.parameters() for student in students), strict=True):
        assert torch.equal(parameter, expected)
    assert torch.equal(silent.distillation.observe().student.logits, asked.distillation.observe().student.logits)


def test_first_order_sees_the_mini_batch_that_comes_next(digits_data):
    """Also when nobody has called observe() since the last update."""
    fresh, observed = (taught(start(digits_data, student="mlp(width=8)"), 2) for _ in range(2))
    for selection in (fresh, observed):
        weights = torch.full((5, 4), 0.25, dtype=torch.float64)
        selection.distillation.apply(Decision.response(weights, 1.0, 2.0))
    observed.distillation.observe()
    assert torch.equal(response(credit.first_order, fresh), response(credit.first_order, observed))


def test_head_then_first_order_on_the_same_run(digits_data):
    asked_twice, asked_once = (taught(start(digits_data, student="mlp(width=8)"), 3) for _ in range(2))
    response(credit.head, asked_twice)
    assert torch.equal(response(credit.first_order, asked_twice), response(credit.first_order, asked_once))


@pytest.mark.parametrize(
    ("kind", "student_examples", "meter_examples"),
    [("head", 5, 40), ("first_order", 10, 40), ("difference", 10, 40), ("counterfactual", 5, 40 * (1 + 5 * 4))],
)
def test_the_cost_of_credit_is_counted(digits_data, kind, student_examples, meter_examples):
    selection = taught(start(digits_data, student="mlp(width=8)"), 0)
    response(credit.CREDITS[kind], selection)
    assert selection.distillation.state.forward_examples.tolist() == [student_examples]
    assert selection.meter.state.forward_examples.tolist() == [meter_examples]
