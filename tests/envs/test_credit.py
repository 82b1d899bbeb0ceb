"""Credit against autograd pair by pair, and against what really happens."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from pairwise import chosen, pairwise
from scipy.stats import spearmanr
from selections import select
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kd_env.bank.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.envs import credit
from kd_env.envs.credit import make_credit
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.types import Decision

STUDENTS = [
    ("digits_data", "mlp(width=8)"),
    ("digits_data", "mlp(width=8,dropout=0.3)"),
    ("digits_data", "tiny-vit(width=8,layers=1,dropout=0.2)"),
    ("text_data", "tiny-bert(width=8,layers=1,dropout=0.2)"),
]


def start(data, seed=0, **keywords):
    """A run and its meter, in a selection."""
    keywords = {"batch_size": 5, "precision": "float64", "reward_labels": 40, "reward_examples": 40, "updates": 40} | keywords
    return select(data, seed, **keywords)


def taught(selection, updates, seed=0):
    """The selection after some updates with random weights, its next mini-batch observed."""
    run, rng = selection.distillation, np.random.default_rng(seed)
    for _ in range(updates):
        rows = run.num_students * run.settings.batch_size
        weights = torch.from_numpy(rng.dirichlet(np.ones(run.num_teachers), rows)).to(run.student.dtype)
        strengths = {**dict.fromkeys(run.loss.terms, run.settings.kd_weight), "label": 1.0 - run.settings.kd_weight}
        run.apply(Decision(dict.fromkeys(run.loss.terms, weights), strengths, run.settings.temperature))
    run.observe()
    return selection


def credit_of(function, selection, names):
    return function(selection.distillation, selection.meter, names)


def response(function, selection):
    """The credit of the response alone ``[rows, K]``."""
    (values,) = credit_of(function, selection, ["response"]).values()
    return values


def held_out_gradient(run):
    """By hand, on all labelled reward examples, without dropout."""
    network, (rows,) = run.student.network.eval(), run.reward_split.rows
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
    ("case", "updates"),
    chosen(
        itertools.product([STUDENTS[0], STUDENTS[1], STUDENTS[3]], [0, 3]),
        [(STUDENTS[0], 0), (STUDENTS[0], 3), (STUDENTS[1], 3), (STUDENTS[3], 3)],
    ),
)
def test_with_sgd_first_order_becomes_the_counterfactual(request, case, updates):
    data, student = case
    selection = start(request.getfixturevalue(data), student=student, optimizer="sgd(lr=0.05)", batch_size=4, kd_weight=0.8)
    selection = taught(selection, updates)
    students = selection.distillation.student
    students.options = dataclasses.replace(students.options, lr=1e-6)
    exact, linear = response(credit.counterfactual, selection), response(credit.first_order, selection)
    large = exact.abs() > 0.02 * exact.abs().max()
    assert large.float().mean() > 0.5
    torch.testing.assert_close((linear / exact)[large], torch.ones_like(exact)[large], rtol=0, atol=1e-3)
    torch.testing.assert_close(linear, exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


def test_the_gap_to_the_counterfactual_closes_with_the_rate(digits_data):
    selection = taught(start(digits_data, student="mlp(width=8)", optimizer="sgd(lr=0.05)", batch_size=4), 3)
    students, gaps = selection.distillation.student, []
    for rate in (1e-2, 1e-4, 1e-6):
        students.options = dataclasses.replace(students.options, lr=rate)
        exact = response(credit.counterfactual, selection)
        gaps.append(float((response(credit.first_order, selection) - exact).norm() / exact.norm()))
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


def rank_correlations(exact, estimate):
    """Spearman's rank correlation of credit ``[rows, K]`` over all pairs, and its mean within instances.

    An instance has a rank where its teachers differ: the standard deviation of its exact credit over the teachers is above 1 % of the root
    mean square of all exact credit. Others are left out of the mean.
    """
    differ = exact.std(1) > 0.01 * np.sqrt(np.square(exact).mean())
    assert differ.mean() > 0.5, "most instances have a rank"
    within = [spearmanr(exact[b], estimate[b]).statistic for b in np.flatnonzero(differ)]
    return spearmanr(exact.ravel(), estimate.ravel()).statistic, np.mean(within)


def at_rate(selection, rate):
    """Credit of the response by each function when the next step has learning rate ``rate``."""
    students = selection.distillation.student
    students.options = dataclasses.replace(students.options, lr=rate)
    return {name: response(function, selection).numpy() for name, function in credit.CREDITS.items()}


@pytest.mark.parametrize(
    ("case", "optimizer", "num_students"), pairwise([STUDENTS[0], STUDENTS[3]], ["adam(lr=0.003)", "sgd(lr=0.05)"], [1, 2])
)
def test_first_order_ranks_as_the_counterfactual_does(request, case, optimizer, num_students):
    """Adam's step is not linear in the gradient, so only the ranks can agree. In full: test_credit_slow.py."""
    data, student = case
    keywords = {"student": student, "optimizer": optimizer, "num_students": num_students, "batch_size": 16 // num_students, "updates": 100}
    values = at_rate(taught(start(request.getfixturevalue(data), **keywords), 60), 1e-7)
    assert min(rank_correlations(values["counterfactual"], values["first_order"])) > 0.95
    assert np.isfinite(rank_correlations(values["counterfactual"], values["head"])).all()


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
    ("kind", "student_examples", "meter_examples"), [("head", 5, 40), ("first_order", 10, 40), ("counterfactual", 5, 40 * (1 + 5 * 4))]
)
def test_the_cost_of_credit_is_counted(digits_data, kind, student_examples, meter_examples):
    selection = taught(start(digits_data, student="mlp(width=8)"), 0)
    response(credit.CREDITS[kind], selection)
    assert selection.distillation.state.forward_examples.tolist() == [student_examples]
    assert selection.meter.state.forward_examples.tolist() == [meter_examples]


@pytest.mark.parametrize("optimizer", ["adam(lr=0.01)", "sgd(lr=0.1,warmup=0.5)"])
def test_the_counterfactual_is_what_a_run_taught_by_one_pair_really_gains(digits_data, optimizer):
    """Against what the same run gains when it is taught with weights of zero, which leaves the momentum."""
    selection = taught(start(digits_data, student="mlp(width=8,dropout=0.3)", optimizer=optimizer), 4)
    run = selection.distillation
    inputs, labels = run.reward_split.at(run.reward_split.rows[0], torch.device("cpu"))

    def loss_after(b, k, weight):
        twin, weights = run.fork(), torch.zeros(5, run.num_teachers, dtype=torch.float64)
        weights[b, k] = weight
        twin.observe()
        twin.apply(Decision({"response": weights}, {"response": 1.0}, run.settings.temperature))
        return twin.student.evaluate(inputs, labels)[0][0]

    values = response(credit.counterfactual, selection)
    for b, k in [(0, 0), (2, 3), (4, 1)]:
        assert float(values[b, k]) == pytest.approx(loss_after(b, k, 0.0) - loss_after(b, k, 1.0), abs=1e-14)


# Other knowledge, several students


def data_with_layers(task, network, num_teachers, keep):
    """Untrained teachers of two layers, of which the bank keeps more than logits and features."""
    teachers = tuple(NetworkTeacher(f"teacher{seed}", build(network, task, seed), task) for seed in range(num_teachers))
    return EncodedTask.of(task, open_bank(task, Pool("deeper", teachers), keep=frozenset(keep)))


@pytest.fixture(scope="module")
def layered_digits(digits_data):
    return data_with_layers(digits_data.task, "mlp(width=12,depth=2)", 3, {"layers"})


@pytest.fixture(scope="module")
def layered_text(text_data):
    return data_with_layers(text_data.task, "tiny-bert(width=16,layers=2,dropout=0)", 2, {"layers", "attention"})


def by_differences(run, name, only_head=False):
    """By hand: rate * (loss(theta + h g) - loss(theta - h g)) / 2h, the held-out loss along the gradient g of one pair over B."""
    losses = run.per_teacher_loss(name, run.settings.temperature) / run.settings.batch_size  # [rows, K]
    rates = [run.student.options.rate(float(progress)) for progress in run.observe().progress]
    values = torch.zeros_like(losses)
    for row, k in np.ndindex(*losses.shape):
        student = row // run.settings.batch_size
        gradients = torch.autograd.grad(losses[row, k], run.student.parameters, retain_graph=True, materialize_grads=True)
        if run.num_students > 1:
            others = [s for s in range(run.num_students) if s != student]
            assert not gradients[0][others].any(), "what one student is taught is nothing to another"
            gradients = [gradients[0][student]]
        along = torch.cat([gradient.flatten() for gradient in gradients])
        network = copy.deepcopy(run.member(student).student.network).eval()
        if only_head:
            head = {id(parameter) for parameter in network.classifier.parameters()}
            in_head = [torch.full((parameter.numel(),), float(id(parameter) in head)) for parameter in network.parameters()]
            along = along * torch.cat(in_head)
        rows = run.reward_split.rows[student]
        inputs, labels = run.student.cast(run.reward_split.at(rows, along.device)[0]), run.data.labels["reward"][rows]
        theta, step = parameters_to_vector(network.parameters()).detach(), 1e-7 / max(float(along.norm()), 1e-12)

        def loss_at(theta, network=network, inputs=inputs, labels=labels):
            vector_to_parameters(theta, network.parameters())
            with torch.no_grad():
                return cross_entropy(network(**inputs).logits, labels)

        values[row, k] = rates[student] * (loss_at(theta + step * along) - loss_at(theta - step * along)) / (2 * step)
    return values.detach()


DIGITS, TEXT = "mlp(width=8,depth=2,dropout=0.2)", "tiny-bert(width=8,layers=2,dropout=0.2)"
KNOWLEDGE = [
    ("layered_digits", DIGITS, "layer"),
    ("layered_digits", DIGITS, "layer(normalized=True)"),
    ("layered_digits", DIGITS, "hint(normalized=True)"),
    ("layered_digits", DIGITS, "feature_ensemble"),
    ("layered_digits", DIGITS, "consistent_surrogate"),
    ("layered_digits", DIGITS, "prior_surrogate"),
    ("layered_digits", DIGITS, "relation"),
    ("layered_digits", DIGITS, "similarity"),
    ("layered_digits", DIGITS, "similarity(kind=angle)"),
    ("layered_digits", DIGITS, "similarity(kind=preserving)"),
    ("layered_digits", DIGITS, "tckd"),
    ("layered_digits", DIGITS, "nckd"),
    ("layered_digits", DIGITS, "contrast"),
    ("layered_text", TEXT, "response"),
    ("layered_text", TEXT, "layer"),
    ("layered_text", TEXT, "relation"),
    ("layered_text", TEXT, "attention"),
    ("layered_text", TEXT, "attention(values=False)"),
]


# A type may fail under vmap alone, or in one student alone: each type with two students, and those that differ in kind with one.
@pytest.mark.parametrize(
    ("case", "num_students"),
    chosen(
        itertools.product(KNOWLEDGE, [1, 2]),
        [*((case, 2) for case in KNOWLEDGE), *((KNOWLEDGE[number], 1) for number in (0, 2, 6, 12, 16))],
    ),
)
def test_first_order_of_every_knowledge_is_the_slope_of_the_held_out_loss(request, case, num_students):
    (data, student, knowledge), size = case, 2 if case[1] == TEXT else 3
    keywords = {"knowledge": f"response,{knowledge}" if knowledge != "response" else knowledge, "num_students": num_students}
    keywords |= {"student": student, "optimizer": "sgd(lr=0.1,warmup=0.5)", "kd_weight": 0.5, "batch_size": size}
    selection = taught(start(request.getfixturevalue(data), **keywords), 3)
    name = knowledge.partition("(")[0]
    values = credit_of(credit.first_order, selection, [name, "label"])
    for type_name in (name, "label"):
        expected = by_differences(selection.distillation, type_name)
        num_teachers = selection.num_teachers if type_name != "label" else 1
        assert values[type_name].shape == expected.shape == (size * num_students, num_teachers)
        assert expected.abs().max() > 1e-9
        torch.testing.assert_close(values[type_name], expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


LOGIT_TYPES = ["response", "label", "tckd", "nckd", "contrast"]


@pytest.mark.parametrize(
    ("name", "num_students"), chosen(itertools.product(LOGIT_TYPES, [1, 2]), [("response", 1), *((name, 2) for name in LOGIT_TYPES)])
)
def test_head_credit_of_types_that_compare_logits_is_the_slope_in_the_classifier(digits_data, name, num_students):
    keywords = {"student": DIGITS, "optimizer": "sgd(lr=0.1)", "kd_weight": 0.5, "batch_size": 3}
    selection = taught(start(digits_data, num_students=num_students, knowledge="response,tckd,nckd,contrast", **keywords), 3)
    expected = by_differences(selection.distillation, name, only_head=True)
    values = credit_of(credit.head, selection, [name])[name]
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", credit.CREDITS)
def test_head_gives_nothing_to_types_that_look_below_it_and_every_credit_knows_all_types(layered_digits, kind):
    names = ["layer", "relation", "similarity", "response"]
    selection = taught(start(layered_digits, student=DIGITS, knowledge=",".join(names), batch_size=3, optimizer="sgd(lr=0.1)"), 3)
    values = credit_of(credit.CREDITS[kind], selection, names)
    assert list(values) == names
    for name in names:
        assert bool(values[name].any()) is (kind != "head" or name == "response")


SCHEDULED = ["adam(lr=0.003,warmup=0.5)", "sgd(lr=0.05,decay=linear)"]


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    chosen(
        itertools.product(credit.CREDITS, SCHEDULED),
        [*((kind, SCHEDULED[0]) for kind in credit.CREDITS), ("first_order", SCHEDULED[1]), ("counterfactual", SCHEDULED[1])],
    ),
)
def test_students_of_a_population_have_the_credit_they_have_alone(digits_data, kind, optimizer):
    """Also where they are at different points of the learning rate's schedule."""
    selection = taught(start(digits_data, num_students=3, student="mlp(width=8)", optimizer=optimizer, batch_size=4), 5)
    selection.reset_student(1, 70)
    taught(selection, 3, seed=1)
    assert selection.distillation.update.tolist() == [8, 3, 8]
    together = response(credit.CREDITS[kind], selection).unflatten(0, (3, 4))
    for student in range(3):
        member = selection.distillation.member(student)
        meter = selection.meter.of_student(student, member.reward_split)
        alone = credit.CREDITS[kind](member, meter, ["response"])["response"]
        torch.testing.assert_close(together[student], alone, rtol=1e-7, atol=1e-9 * float(alone.abs().max()))


def test_first_order_credit_repeats_the_masks_of_the_retained_pass(digits_data):
    keywords = {"student": "mlp(width=16,dropout=0.5)", "num_students": 3, "reward_examples": 20, "optimizer": "sgd(lr=0.1)"}
    selection = start(digits_data, batch_size=8, updates=200, **keywords)
    run = selection.distillation
    values = response(credit.first_order, selection)
    losses = run.per_teacher_loss("response", run.settings.temperature) / run.settings.batch_size
    direction = selection.meter.held_out_gradient(run.student, run.update)[0] * 0.1
    for row, k in ((0, 0), (5, 3), (8, 1), (23, 2)):
        (gradient,) = torch.autograd.grad(losses[row, k], run.student.parameters, retain_graph=True)
        assert float(values[row, k]) == pytest.approx(float((gradient * direction).sum()), rel=1e-9, abs=1e-15)


def test_a_temperature_of_each_row_gives_the_credit_at_that_temperature(digits_data):
    selection = taught(start(digits_data, student="mlp(width=8)"), 2)
    temperatures = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    for function in credit.CREDITS.values():
        together = function(selection.distillation, selection.meter, ["response"], temperatures)["response"]
        for row, temperature in enumerate(temperatures.tolist()):
            alone = function(selection.distillation, selection.meter, ["response"], temperature)["response"]
            torch.testing.assert_close(together[row], alone[row], rtol=1e-9, atol=1e-14)


# Formulas


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_normalized_rows_have_mean_zero_and_deviation_one(dtype, precision):
    for num_teachers, scale in itertools.product([2, 3, 5, 8], [1e-9, 1.0, 1e6]):
        raw = scale * torch.randn(50, num_teachers, dtype=dtype, generator=torch.Generator().manual_seed(0))
        normalized = credit.normalize(raw)
        torch.testing.assert_close(normalized.mean(1), torch.zeros(50, dtype=dtype), rtol=0, atol=precision)
        torch.testing.assert_close(normalized.std(1, unbiased=False), torch.ones(50, dtype=dtype), rtol=0, atol=precision)
        assert torch.equal(normalized.argsort(1), raw.argsort(1))


def test_normalize_by_hand():
    normalized = credit.normalize(torch.tensor([[1.0, 3.0], [2.0, 2.0], [-1.0, 0.0]]))
    assert normalized.tolist() == [[-1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_teacher_or_equal_ones_have_no_credit(dtype):
    for num_teachers in (1, 2, 3, 5, 6, 7):
        values = torch.rand(200, 1, dtype=dtype, generator=torch.Generator().manual_seed(1)) - 0.5
        assert not credit.normalize(values.expand(-1, num_teachers).contiguous()).any()


def test_scale_by_hand():
    """To a root mean square of 1 over all candidates of a row; zero stays zero, and signs stay."""
    scaled = credit.scale(torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]]))
    torch.testing.assert_close(scaled, torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]]) / 12.5**0.5)


# By name


@pytest.mark.parametrize("smoothing", [-0.5, 0.2])
@pytest.mark.parametrize("name", ["first_order", "counterfactual"])
def test_label_smoothing_is_of_the_held_out_loss(digits_data, name, smoothing, monkeypatch):
    """Credit is linear in the held-out loss to first order, so it is compared with credit under a loss written out by hand."""
    selection = taught(start(digits_data, optimizer="sgd(lr=0.001)"), 3)
    smoothed = response(make_credit(f"{name}(smoothing={smoothing})"), selection)

    def by_hand(logits, labels, reduction="mean"):
        targets = (1 - smoothing) * torch.nn.functional.one_hot(labels, 10) + smoothing / 10
        losses = -(targets * logits.log_softmax(1)).sum(1)
        return losses.mean() if reduction == "mean" else losses

    plain = response(make_credit(name), selection)
    selection.meter.state.gradient_update[:] = -1
    monkeypatch.setattr("kd_env.distillation.reward_meter.cross_entropy", by_hand)
    torch.testing.assert_close(smoothed, response(make_credit(name), selection))
    assert not torch.allclose(smoothed, plain, rtol=0.05)


def test_a_gradient_of_another_smoothing_is_not_used_again(digits_data):
    selection = taught(start(digits_data, credit_refresh=5), 2)
    plain = response(credit.head, selection)
    smoothed = response(make_credit("head(smoothing=-1)"), selection)
    assert not torch.allclose(smoothed, plain)
    assert torch.equal(response(credit.head, selection), plain)


def negative(run, meter, names, temperature=None, factor=1.0):
    return {name: -factor * values for name, values in credit.head(run, meter, names, temperature).items()}


def test_options_of_credit(digits_data):
    selection = taught(start(digits_data), 2)
    doubled = response(make_credit(f"{__name__}:negative(factor=2.0)"), selection)
    torch.testing.assert_close(doubled, -2.0 * response(credit.head, selection))
    with pytest.raises(InputError, match=r"unknown option of credit=head 'smooting'; did you mean 'smoothing'"):
        make_credit("head(smooting=0.1)")
    with pytest.raises(InputError, match=r"credit=head\(smoothing='much'\): expected a number below 1"):
        make_credit("head(smoothing=much)")
    with pytest.raises(InputError, match="unknown credit 'shared'"):
        make_credit("shared(smoothing=0.1)")


def test_credit_by_name():
    assert make_credit("shared") is None
    assert make_credit("head") is credit.head
    assert make_credit(f"{__name__}:response") is response
    with pytest.raises(InputError, match=r"unknown credit 'first_ordr'; did you mean 'first_order'.*, and no module:function"):
        make_credit("first_ordr")
    with pytest.raises(InputError, match=r"credit 'no_such_module:f' cannot be imported \(ModuleNotFoundError: .*\); give module:name"):
        make_credit("no_such_module:f")
    with pytest.raises(InputError, match=f"credit '{__name__}:STUDENTS': a list is not a function; name one that takes"):
        make_credit(f"{__name__}:STUDENTS")
