"""Credit against autograd pair by pair, and against what really happens."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import cross_entropy

from kd_env.distillation import Distillation
from kd_env.envs import credit
from kd_env.settings import settings
from kd_env.types import Decision

STUDENTS = [
    ("digits_material", "mlp(width=8)"),
    ("digits_material", "mlp(width=8,dropout=0.3)"),
    ("digits_material", "tiny-vit(width=8,layers=1,dropout=0.2)"),
    ("text_material", "tiny-bert(width=8,layers=1,dropout=0.2)"),
]


def start(material, seed=0, **keywords):
    keywords = {"batch_size": 5, "precision": "float64", "reward_labels": 40, "reward_examples": 40, "updates": 40} | keywords
    return Distillation(material, settings(material.task, **keywords), seed)


def taught(run, updates, seed=0):
    """The run after some updates with random weights, observed."""
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        weights = torch.from_numpy(rng.dirichlet(np.ones(run.num_teachers), run.settings.batch_size)).to(run.student.dtype)
        run.apply(Decision.response(weights, run.settings.strength, run.settings.temperature))
    run.observe()
    return run


def held_out_gradient(run):
    """By hand, on all labelled reward examples, without dropout."""
    network = run.student.network.eval()
    inputs = run.student.cast({name: tensor[run.reward_rows] for name, tensor in run.material.inputs["reward"].items()})
    loss = cross_entropy(network(**inputs).logits, run.material.labels["reward"][run.reward_rows])
    gradient = torch.autograd.grad(loss, list(network.parameters()))
    network.train()
    return gradient


def scales(run):
    """By hand: what Adam divides a gradient by; 1 for SGD."""
    found = []
    for parameter in run.student.network.parameters():
        state = run.student.optimizer.state.get(parameter, {})
        if "exp_avg_sq" in state:
            found.append(1.0 / ((state["exp_avg_sq"] / (1 - 0.999 ** int(state["step"]))).sqrt() + 1e-8))
        else:
            found.append(1.0)
    return found


def pair_by_pair(run, only_head=False):
    """By hand: strength / B * rate * <scale * held-out gradient, grad KL_bk>, one autograd call a pair, on the retained pass."""
    parameters = list(run.student.network.parameters())
    head = {id(parameter) for parameter in run.student.classifier.parameters()}
    rate = run.student.options.rate(run.update / run.settings.updates)
    direction = [scale * value for scale, value in zip(scales(run), held_out_gradient(run), strict=True)]
    terms = run.response_terms(run.settings.temperature)
    found = torch.zeros_like(terms)
    for b, k in np.ndindex(*terms.shape):
        gradients = torch.autograd.grad(terms[b, k], parameters, retain_graph=True)
        inner = [(v * g).sum() for v, g, p in zip(direction, gradients, parameters, strict=True) if not only_head or id(p) in head]
        found[b, k] = rate * sum(inner) * run.settings.strength / run.settings.batch_size
    return found.detach()


@pytest.mark.parametrize(("material", "student"), STUDENTS)
@pytest.mark.parametrize("optimizer", ["adam(lr=0.01)", "sgd(lr=0.1,warmup=0.5)", "adamw(lr=0.01,weight_decay=0.1,decay=linear)"])
def test_first_order_is_the_inner_product_of_each_pair(request, material, student, optimizer):
    run = taught(start(request.getfixturevalue(material), student=student, optimizer=optimizer, strength=0.7, temperature=3.0), 4)
    expected = pair_by_pair(run)
    found = credit.first_order(run)
    assert found.shape == (5, run.num_teachers)
    assert expected.abs().max() > 1e-6
    # Attention's key biases have no gradient but rounding, which Adam's scale of up to 1e8 makes visible.
    tolerance = 1e-6 if optimizer.startswith("adam") and student.startswith("tiny") else 1e-8
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(("material", "student"), STUDENTS)
@pytest.mark.parametrize("updates", [0, 4])
def test_head_is_first_order_of_the_classifier_alone(request, material, student, updates):
    run = taught(start(request.getfixturevalue(material), student=student, optimizer="adam(lr=0.01)", strength=0.7), updates)
    expected = pair_by_pair(run, only_head=True)
    torch.testing.assert_close(credit.head(run), expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_the_formula_in_plain_sums(digits_material):
    """r_bk = tau (q - p) . (J v), with J v from a finite difference of the student's logits along v."""
    run = taught(start(digits_material, student="mlp(width=8)", optimizer="sgd(lr=0.5)", temperature=3.0), 2)
    step, moved = 1e-5, []
    for sign in (1, -1):
        network, direction = copy.deepcopy(run.student.network), held_out_gradient(run)
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), direction, strict=True):
                parameter += sign * step * value
            moved.append(network(**run.student.cast(run.inputs_of_batch())).logits)
    along = (moved[0] - moved[1]) / (2 * step)  # [B, C]
    features = run.observe()
    expected = torch.zeros(5, run.num_teachers, dtype=torch.float64)
    for b, k in np.ndindex(*expected.shape):
        q, p = (features.student.logits[b] / 3).softmax(0), (features.teacher_logits[b, k] / 3).softmax(0)
        expected[b, k] = 0.5 / 5 * 3.0 * sum((q[c] - p[c]) * along[b, c] for c in range(10))
    torch.testing.assert_close(credit.first_order(run), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("material", "student"), [STUDENTS[0], STUDENTS[1], STUDENTS[3]])
@pytest.mark.parametrize("updates", [0, 3])
def test_with_sgd_first_order_becomes_the_counterfactual(request, material, student, updates):
    run = start(request.getfixturevalue(material), student=student, optimizer="sgd(lr=0.05)", batch_size=4, strength=0.8)
    run = taught(run, updates)
    run.student.options = dataclasses.replace(run.student.options, lr=1e-6)
    exact, linear = credit.counterfactual(run), credit.first_order(run)
    large = exact.abs() > 0.02 * exact.abs().max()
    assert large.float().mean() > 0.5
    torch.testing.assert_close((linear / exact)[large], torch.ones_like(exact)[large], rtol=0, atol=1e-3)
    torch.testing.assert_close(linear, exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


def test_the_gap_to_the_counterfactual_closes_with_the_rate(digits_material):
    run = taught(start(digits_material, student="mlp(width=8)", optimizer="sgd(lr=0.05)", batch_size=4), 3)
    gaps = []
    for rate in (1e-2, 1e-4, 1e-6):
        run.student.options = dataclasses.replace(run.student.options, lr=rate)
        exact = credit.counterfactual(run)
        gaps.append(float((credit.first_order(run) - exact).norm() / exact.norm()))
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


@pytest.mark.parametrize(("material", "student"), [STUDENTS[0], STUDENTS[3]])
def test_with_adam_first_order_ranks_as_the_counterfactual_does(request, material, student):
    given = request.getfixturevalue(material)
    run = taught(start(given, student=student, optimizer="adam(lr=0.003)", batch_size=16, updates=100), 60)
    run.student.options = dataclasses.replace(run.student.options, lr=1e-7)
    exact, linear = credit.counterfactual(run).numpy(), credit.first_order(run).numpy()
    assert spearmanr(exact.ravel(), linear.ravel()).statistic > 0.95
    within = [spearmanr(exact[b], linear[b]).statistic for b in range(16)]
    assert np.mean(within) > 0.95


@pytest.mark.parametrize(("material", "student"), STUDENTS)
@pytest.mark.parametrize("kind", ["first_order", "head", "counterfactual"])
def test_asking_for_credit_changes_nothing(request, material, student, kind):
    """Dropout is replayed, not drawn anew: the student is the same to the last bit."""
    given = request.getfixturevalue(material)
    keywords = {"student": student, "batch_size": 3, "precision": "float32", "credit": kind, "optimizer": "adam(lr=0.01)"}
    silent, asked = start(given, **keywords), start(given, **keywords)
    for update in range(3):
        taught(silent, 1, seed=update)
        first = credit.CREDITS[kind](asked)
        assert torch.equal(first, credit.CREDITS[kind](asked)), "asking twice gives the same"
        taught(asked, 1, seed=update)
    for one, two in zip(silent.student.network.parameters(), asked.student.network.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(silent.observe().student.logits, asked.observe().student.logits)


def test_first_order_sees_the_mini_batch_that_comes_next(digits_material):
    """Also when nobody has called observe() since the last update."""
    fresh, observed = (taught(start(digits_material, student="mlp(width=8)"), 2) for _ in range(2))
    for run in (fresh, observed):
        weights = torch.full((5, 4), 0.25, dtype=torch.float64)
        run.apply(Decision.response(weights, 1.0, 2.0))
    observed.observe()
    assert torch.equal(credit.first_order(fresh), credit.first_order(observed))


def test_head_then_first_order_on_one_run(digits_material):
    one, two = (taught(start(digits_material, student="mlp(width=8)"), 3) for _ in range(2))
    credit.head(one)
    assert torch.equal(credit.first_order(one), credit.first_order(two))


def test_what_credit_costs_is_counted(digits_material):
    run = taught(start(digits_material, student="mlp(width=8)"), 0)
    credit.head(run)
    assert (run.student_forward_examples, run.meter.forward_examples) == (5, 40)
    run = taught(start(digits_material, student="mlp(width=8)"), 0)
    credit.first_order(run)
    assert (run.student_forward_examples, run.meter.forward_examples) == (10, 40)
    run = taught(start(digits_material, student="mlp(width=8)"), 0)
    credit.counterfactual(run)
    assert (run.student_forward_examples, run.meter.forward_examples) == (5, 40 * (1 + 5 * 4))


def test_without_strength_nobody_has_credit(digits_material):
    run = taught(start(digits_material, student="mlp(width=8)", strength=0.0), 2)
    for kind in credit.CREDITS.values():
        assert not kind(run).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_teachers", [2, 3, 5, 8])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_normalized_rows_have_mean_zero_and_deviation_one(dtype, num_teachers, scale):
    raw = scale * torch.randn(50, num_teachers, dtype=dtype, generator=torch.Generator().manual_seed(0))
    made = credit.normalize(raw)
    precision = 1e-4 if dtype is torch.float32 else 1e-10
    torch.testing.assert_close(made.mean(1), torch.zeros(50, dtype=dtype), rtol=0, atol=precision)
    torch.testing.assert_close(made.std(1, unbiased=False), torch.ones(50, dtype=dtype), rtol=0, atol=precision)
    assert torch.equal(made.argsort(1), raw.argsort(1))


def test_normalize_by_hand():
    made = credit.normalize(torch.tensor([[1.0, 3.0], [2.0, 2.0], [-1.0, 0.0]]))
    assert made.tolist() == [[-1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_teachers", [1, 2, 3, 5, 6, 7])
def test_one_teacher_or_equal_ones_have_no_credit(dtype, num_teachers):
    values = torch.rand(200, 1, dtype=dtype, generator=torch.Generator().manual_seed(1)) - 0.5
    assert not credit.normalize(values.expand(-1, num_teachers).contiguous()).any()
