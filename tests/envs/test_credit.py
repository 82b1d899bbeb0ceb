"""Credit against autograd pair by pair, and against what really happens."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.envs import credit
from kd_env.envs.selection import Selection
from kd_env.envs.settings import settings
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool, load_pool
from kd_env.types import Decision

STUDENTS = [
    ("digits_data", "mlp(width=8)"),
    ("digits_data", "mlp(width=8,dropout=0.3)"),
    ("digits_data", "tiny-vit(width=8,layers=1,dropout=0.2)"),
    ("text_data", "tiny-bert(width=8,layers=1,dropout=0.2)"),
]


def start(data, seed=0, **keywords):
    keywords = {"batch_size": 5, "precision": "float64", "reward_labels": 40, "reward_examples": 40, "updates": 40} | keywords
    return Distillation(data, settings(data.task, **keywords), seed)


def taught(run, updates, seed=0):
    """The run after some updates with random weights, observed."""
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        rows = run.num_students * run.settings.batch_size
        weights = torch.from_numpy(rng.dirichlet(np.ones(run.num_teachers), rows)).to(run.student.dtype)
        strengths = {**dict.fromkeys(run.terms, run.settings.kd_weight), "label": 1.0 - run.settings.kd_weight}
        run.apply(Decision(dict.fromkeys(run.terms, weights), strengths, run.settings.temperature))
    run.observe()
    return run


def response(kind, run):
    """The credit of the response alone ``[rows, K]``."""
    (found,) = kind(run, ["response"]).values()
    return found


def held_out_gradient(run):
    """By hand, on all labelled reward examples, without dropout."""
    network = run.student.network.eval()
    inputs = run.student.cast({name: tensor[run.meter.rows[0]] for name, tensor in run.data.inputs["reward"].items()})
    loss = cross_entropy(network(**inputs).logits, run.data.labels["reward"][run.meter.rows[0]])
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
    """By hand: 1 / B * rate * <scale * held-out gradient, grad KL_bk>, one autograd call a pair, on the retained pass."""
    parameters = list(run.student.network.parameters())
    head = {id(parameter) for parameter in run.student.classifier.parameters()}
    rate = run.student.options.rate(run.update[0] / run.settings.updates)
    direction = [scale * value for scale, value in zip(scales(run), held_out_gradient(run), strict=True)]
    terms = run.per_teacher_loss("response", run.settings.temperature)
    found = torch.zeros_like(terms)
    for b, k in np.ndindex(*terms.shape):
        gradients = torch.autograd.grad(terms[b, k], parameters, retain_graph=True)
        inner = [(v * g).sum() for v, g, p in zip(direction, gradients, parameters, strict=True) if not only_head or id(p) in head]
        found[b, k] = rate * sum(inner) / run.settings.batch_size
    return found.detach()


@pytest.mark.parametrize(("data", "student"), STUDENTS)
@pytest.mark.parametrize("optimizer", ["adam(lr=0.01)", "sgd(lr=0.1,warmup=0.5)", "adamw(lr=0.01,weight_decay=0.1,decay=linear)"])
def test_first_order_is_the_inner_product_of_each_pair(request, data, student, optimizer):
    run = taught(start(request.getfixturevalue(data), student=student, optimizer=optimizer, kd_weight=0.7, temperature=3.0), 4)
    expected = pair_by_pair(run)
    found = response(credit.first_order, run)
    assert found.shape == (5, run.num_teachers)
    assert expected.abs().max() > 1e-6
    # Attention's key biases have no gradient but rounding, which Adam's scale of up to 1e8 makes visible.
    tolerance = 1e-6 if optimizer.startswith("adam") and student.startswith("tiny") else 1e-8
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(("data", "student"), STUDENTS)
@pytest.mark.parametrize("updates", [0, 4])
def test_head_is_first_order_of_the_classifier_alone(request, data, student, updates):
    run = taught(start(request.getfixturevalue(data), student=student, optimizer="adam(lr=0.01)", kd_weight=0.7), updates)
    expected = pair_by_pair(run, only_head=True)
    torch.testing.assert_close(response(credit.head, run), expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_the_formula_in_plain_sums(digits_data):
    """r_bk = tau (q - p) . (J v), with J v from a finite difference of the student's logits along v."""
    run = taught(start(digits_data, student="mlp(width=8)", optimizer="sgd(lr=0.5)", temperature=3.0), 2)
    step, moved = 1e-5, []
    for sign in (1, -1):
        network, direction = copy.deepcopy(run.student.network), held_out_gradient(run)
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), direction, strict=True):
                parameter += sign * step * value
            moved.append(network(**run.student.cast(run.batch_inputs())).logits)
    along = (moved[0] - moved[1]) / (2 * step)  # [B, C]
    features = run.observe()
    expected = torch.zeros(5, run.num_teachers, dtype=torch.float64)
    for b, k in np.ndindex(*expected.shape):
        q, p = (features.student.logits[b] / 3).softmax(0), (features.teacher_logits[b, k] / 3).softmax(0)
        expected[b, k] = 0.5 / 5 * 3.0 * sum((q[c] - p[c]) * along[b, c] for c in range(10))
    torch.testing.assert_close(response(credit.first_order, run), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("data", "student"), [STUDENTS[0], STUDENTS[1], STUDENTS[3]])
@pytest.mark.parametrize("updates", [0, 3])
def test_with_sgd_first_order_becomes_the_counterfactual(request, data, student, updates):
    run = start(request.getfixturevalue(data), student=student, optimizer="sgd(lr=0.05)", batch_size=4, kd_weight=0.8)
    run = taught(run, updates)
    run.student.options = dataclasses.replace(run.student.options, lr=1e-6)
    exact, linear = response(credit.counterfactual, run), response(credit.first_order, run)
    large = exact.abs() > 0.02 * exact.abs().max()
    assert large.float().mean() > 0.5
    torch.testing.assert_close((linear / exact)[large], torch.ones_like(exact)[large], rtol=0, atol=1e-3)
    torch.testing.assert_close(linear, exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


def test_the_gap_to_the_counterfactual_closes_with_the_rate(digits_data):
    run = taught(start(digits_data, student="mlp(width=8)", optimizer="sgd(lr=0.05)", batch_size=4), 3)
    gaps = []
    for rate in (1e-2, 1e-4, 1e-6):
        run.student.options = dataclasses.replace(run.student.options, lr=rate)
        exact = response(credit.counterfactual, run)
        gaps.append(float((response(credit.first_order, run) - exact).norm() / exact.norm()))
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


def ranks(exact, guessed):
    """Spearman's rank correlation ``[rows, K]`` over all pairs, and its mean within instances.

    An instance has a rank where its teachers differ: the standard deviation of its exact credit over the teachers is above 1 % of the root
    mean square of all exact credit. Others are left out of the mean.
    """
    differ = exact.std(1) > 0.01 * np.sqrt(np.square(exact).mean())
    assert differ.mean() > 0.5, "most instances have a rank"
    within = [spearmanr(exact[b], guessed[b]).statistic for b in np.flatnonzero(differ)]
    return spearmanr(exact.ravel(), guessed.ravel()).statistic, np.mean(within)


def at_rate(run, rate):
    """What the three kinds say of the response when the next step has learning rate ``rate``."""
    run.student.options = dataclasses.replace(run.student.options, lr=rate)
    return {name: response(kind, run).numpy() for name, kind in credit.CREDITS.items()}


@pytest.mark.parametrize("num_students", [1, 2])
@pytest.mark.parametrize("optimizer", ["adam(lr=0.003)", "sgd(lr=0.05)"])
@pytest.mark.parametrize(("data", "student"), [STUDENTS[0], STUDENTS[3]])
def test_first_order_ranks_as_the_counterfactual_does(request, data, student, optimizer, num_students):
    """Adam's step is not linear in the gradient, so only the ranks can agree. In full: test_credit_slow.py."""
    keywords = {"student": student, "optimizer": optimizer, "num_students": num_students, "batch_size": 16 // num_students, "updates": 100}
    run = taught(start(request.getfixturevalue(data), **keywords), 60)
    found = at_rate(run, 1e-7)
    assert min(ranks(found["counterfactual"], found["first_order"])) > 0.95
    assert np.isfinite(ranks(found["counterfactual"], found["head"])).all()


@pytest.mark.parametrize(("data", "student"), STUDENTS)
@pytest.mark.parametrize("kind", ["first_order", "head", "counterfactual"])
def test_asking_for_credit_changes_nothing(request, data, student, kind):
    """Dropout is replayed, not drawn anew: the student is the same to the last bit."""
    given = request.getfixturevalue(data)
    keywords = {"student": student, "batch_size": 3, "precision": "float32", "credit": kind, "optimizer": "adam(lr=0.01)"}
    silent, asked = start(given, **keywords), start(given, **keywords)
    for update in range(3):
        taught(silent, 1, seed=update)
        first = response(credit.CREDITS[kind], asked)
        assert torch.equal(first, response(credit.CREDITS[kind], asked)), "asking twice gives the same"
        taught(asked, 1, seed=update)
    for one, two in zip(silent.student.network.parameters(), asked.student.network.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(silent.observe().student.logits, asked.observe().student.logits)


def test_first_order_sees_the_mini_batch_that_comes_next(digits_data):
    """Also when nobody has called observe() since the last update."""
    fresh, observed = (taught(start(digits_data, student="mlp(width=8)"), 2) for _ in range(2))
    for run in (fresh, observed):
        weights = torch.full((5, 4), 0.25, dtype=torch.float64)
        run.apply(Decision.response(weights, 1.0, 2.0))
    observed.observe()
    assert torch.equal(response(credit.first_order, fresh), response(credit.first_order, observed))


def test_head_then_first_order_on_one_run(digits_data):
    one, two = (taught(start(digits_data, student="mlp(width=8)"), 3) for _ in range(2))
    response(credit.head, one)
    assert torch.equal(response(credit.first_order, one), response(credit.first_order, two))


def test_what_credit_costs_is_counted(digits_data):
    run = taught(start(digits_data, student="mlp(width=8)"), 0)
    response(credit.head, run)
    assert (run.state.forward_examples, run.meter.forward_examples) == (5, 40)
    run = taught(start(digits_data, student="mlp(width=8)"), 0)
    response(credit.first_order, run)
    assert (run.state.forward_examples, run.meter.forward_examples) == (10, 40)
    run = taught(start(digits_data, student="mlp(width=8)"), 0)
    response(credit.counterfactual, run)
    assert (run.state.forward_examples, run.meter.forward_examples) == (5, 40 * (1 + 5 * 4))


def stepped(data, **keywords):
    """A mini-batch taught through an environment's rows, as its settings pay for it; credit as it is, not normalised."""
    keywords = {"student": "mlp(width=8)", "normalize_credit": False, "batch_size": 5, "precision": "float64", "updates": 40} | keywords
    selection = Selection(data, load_pool("digits/experts", data.task), settings(data.task, **keywords))
    given = credit.CREDITS[keywords["credit"]](selection.distillation, ["response"])["response"]
    return given, selection.advance(np.tile([1, 0, 0, 1], (5, 1)))


@pytest.mark.parametrize("kind", credit.CREDITS)
@pytest.mark.parametrize("normal", [True, False])
def test_without_strength_nobody_has_credit(digits_data, kind, normal):
    given, step = stepped(digits_data, credit=kind, kd_weight=0.0, normalize_credit=normal)
    assert given.any(), "of a response at strength 1"
    assert not step.credit["credit"].any()
    assert not step.rewards.any()


@pytest.mark.parametrize("kind", credit.CREDITS)
def test_credit_is_paid_by_strength_and_weight(digits_data, kind):
    given, step = stepped(digits_data, credit=kind, kd_weight=0.7)
    np.testing.assert_allclose(step.credit["credit"], 0.7 * given, rtol=1e-12)
    np.testing.assert_allclose(step.rewards, 0.7 * (given[:, 0] + given[:, 3]) / 2, rtol=1e-7)


@pytest.mark.parametrize("optimizer", ["adam(lr=0.01)", "sgd(lr=0.1,warmup=0.5)"])
def test_the_counterfactual_is_what_a_run_taught_by_one_pair_really_gains(digits_data, optimizer):
    """Against what the same run gains when it is taught with weights of zero, which leaves the momentum."""
    run = taught(start(digits_data, student="mlp(width=8,dropout=0.3)", optimizer=optimizer), 4)
    rows, labels = run.meter.at(run.meter.rows[0], torch.device("cpu"))

    def loss_after(b, k, weight):
        twin, weights = run.fork(), torch.zeros(5, run.num_teachers, dtype=torch.float64)
        weights[b, k] = weight
        twin.observe()
        twin.apply(Decision({"response": weights}, {"response": 1.0}, run.settings.temperature))
        return twin.student.evaluate(rows, labels)[0][0]

    found = response(credit.counterfactual, run)
    for b, k in [(0, 0), (2, 3), (4, 1)]:
        assert float(found[b, k]) == pytest.approx(loss_after(b, k, 0.0) - loss_after(b, k, 1.0), abs=1e-14)


# Other knowledge, several students


def knowing(task, network, num_teachers, keep):
    """EncodedTask with untrained teachers of two layers, of which the bank keeps more than what they answer."""
    teachers = tuple(NetworkTeacher(f"teacher{seed}", build(network, task, seed), task) for seed in range(num_teachers))
    return EncodedTask.of(task, open_bank(task, Pool("deeper", teachers), keep=frozenset(keep)))


@pytest.fixture(scope="module")
def knowing_digits(digits_data):
    return knowing(digits_data.task, "mlp(width=12,depth=2)", 3, {"layers"})


@pytest.fixture(scope="module")
def knowing_text(text_data):
    return knowing(text_data.task, "tiny-bert(width=16,layers=2,dropout=0)", 2, {"layers", "attention"})


def by_differences(run, name, only_head=False):
    """By hand: rate * (loss(theta + h g) - loss(theta - h g)) / 2h, the held-out loss along the gradient g of one pair over B."""
    terms = run.per_teacher_loss(name, run.settings.temperature) / run.settings.batch_size  # [rows, K]
    rates = [run.student.options.rate(float(progress)) for progress in run.observe().progress]
    found = torch.zeros_like(terms)
    for row, k in np.ndindex(*terms.shape):
        student = row // run.settings.batch_size
        gradients = torch.autograd.grad(terms[row, k], run.student.parameters, retain_graph=True, materialize_grads=True)
        if run.num_students > 1:
            others = [s for s in range(run.num_students) if s != student]
            assert not gradients[0][others].any(), "what one student is taught is nothing to another"
            gradients = [gradients[0][student]]
        along = torch.cat([gradient.flatten() for gradient in gradients])
        network = copy.deepcopy(run.member(student).student.network).eval()
        if only_head:
            head = {id(parameter) for parameter in network.classifier.parameters()}
            along = along * torch.cat([torch.full((one.numel(),), float(id(one) in head)) for one in network.parameters()])
        rows = run.meter.rows[student]
        inputs, labels = run.student.cast(run.meter.at(rows, along.device)[0]), run.data.labels["reward"][rows]
        start, step = parameters_to_vector(network.parameters()).detach(), 1e-7 / max(float(along.norm()), 1e-12)

        def loss_at(theta, network=network, inputs=inputs, labels=labels):
            vector_to_parameters(theta, network.parameters())
            with torch.no_grad():
                return cross_entropy(network(**inputs).logits, labels)

        found[row, k] = rates[student] * (loss_at(start + step * along) - loss_at(start - step * along)) / (2 * step)
    return found.detach()


DIGITS, TEXT = "mlp(width=8,depth=2,dropout=0.2)", "tiny-bert(width=8,layers=2,dropout=0.2)"
KNOWLEDGE = [
    ("knowing_digits", DIGITS, "layer"),
    ("knowing_digits", DIGITS, "layer(normalized=True)"),
    ("knowing_digits", DIGITS, "hint(normalized=True)"),
    ("knowing_digits", DIGITS, "feature_ensemble"),
    ("knowing_digits", DIGITS, "consistent_surrogate"),
    ("knowing_digits", DIGITS, "prior_surrogate"),
    ("knowing_digits", DIGITS, "relation"),
    ("knowing_digits", DIGITS, "similarity"),
    ("knowing_digits", DIGITS, "similarity(kind=angle)"),
    ("knowing_digits", DIGITS, "similarity(kind=preserving)"),
    ("knowing_digits", DIGITS, "tckd"),
    ("knowing_digits", DIGITS, "nckd"),
    ("knowing_digits", DIGITS, "contrast"),
    ("knowing_text", TEXT, "response"),
    ("knowing_text", TEXT, "layer"),
    ("knowing_text", TEXT, "relation"),
    ("knowing_text", TEXT, "attention"),
    ("knowing_text", TEXT, "attention(values=False)"),
]


@pytest.mark.parametrize("num_students", [1, 2])
@pytest.mark.parametrize(("data", "student", "knowledge"), KNOWLEDGE)
def test_first_order_of_every_knowledge_is_the_slope_of_the_held_out_loss(request, data, student, knowledge, num_students):
    keywords = {"knowledge": f"response,{knowledge}" if knowledge != "response" else knowledge, "num_students": num_students}
    keywords |= {"student": student, "optimizer": "sgd(lr=0.1,warmup=0.5)", "kd_weight": 0.5, "batch_size": 3}
    run = taught(start(request.getfixturevalue(data), **keywords), 3)
    name = knowledge.partition("(")[0]
    found = credit.first_order(run, [name, "label"])
    for one in (name, "label"):
        expected = by_differences(run, one)
        assert found[one].shape == expected.shape == (3 * num_students, run.num_teachers if one != "label" else 1)
        assert expected.abs().max() > 1e-9
        torch.testing.assert_close(found[one], expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("num_students", [1, 2])
@pytest.mark.parametrize("name", ["response", "label", "tckd", "nckd", "contrast"])
def test_head_credit_of_what_compares_logits_is_the_slope_in_the_classifier(digits_data, name, num_students):
    keywords = {
        "student": DIGITS,
        "optimizer": "sgd(lr=0.1)",
        "kd_weight": 0.5,
        "batch_size": 3,
        "knowledge": "response,tckd,nckd,contrast",
    }
    run = taught(start(digits_data, num_students=num_students, **keywords), 3)
    expected = by_differences(run, name, only_head=True)
    torch.testing.assert_close(credit.head(run, [name])[name], expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", credit.CREDITS)
def test_head_gives_nothing_to_what_looks_below_it_and_every_kind_knows_all_types(knowing_digits, kind):
    names = ["layer", "relation", "similarity", "response"]
    run = taught(start(knowing_digits, student=DIGITS, knowledge=",".join(names), batch_size=3, optimizer="sgd(lr=0.1)"), 3)
    found = credit.CREDITS[kind](run, names)
    assert list(found) == names
    for name in names:
        assert bool(found[name].any()) is (kind != "head" or name == "response")


@pytest.mark.parametrize("optimizer", ["adam(lr=0.003)", "sgd(lr=0.05)"])
@pytest.mark.parametrize("kind", credit.CREDITS)
def test_students_of_a_population_have_the_credit_they_have_alone(digits_data, kind, optimizer):
    run = taught(start(digits_data, num_students=3, student="mlp(width=8)", optimizer=optimizer, batch_size=4), 5)
    together = response(credit.CREDITS[kind], run).unflatten(0, (3, 4))
    for student in range(3):
        alone = response(credit.CREDITS[kind], run.member(student))
        torch.testing.assert_close(together[student], alone, rtol=1e-7, atol=1e-9 * float(alone.abs().max()))


# Formulas of use


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
