"""Credit of every knowledge type and of the students of a population, against differences of the held-out loss."""

import copy
import itertools

import numpy as np
import pytest
import torch
from credited import credit_of, response, start, taught
from pairwise import chosen
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kd_env.bank.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.envs import credit
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool


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
        network = copy.deepcopy(run.of_student(student).student.network).eval()
        if only_head:
            head = {id(parameter) for parameter in network.classifier.parameters()}
            in_head = [torch.full((parameter.numel(),), float(id(parameter) in head)) for parameter in network.parameters()]
            along = along * torch.cat(in_head)
        rows = run.reward_split.positions[student]
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
        member = selection.distillation.of_student(student)
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
