"""Variants of the feature knowledge: values worked out by hand, what each adds to the hint, and that each teaches."""

import itertools

import numpy as np
import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.envs.settings import settings
from kd_env.knowledge.consistent import ConsistentSurrogate, match
from kd_env.knowledge.feature_ensemble import FeatureEnsemble
from kd_env.knowledge.hint import Hint
from kd_env.knowledge.prior import GOLDEN, PriorSurrogate, cka, turns
from kd_env.knowledge.projectors import MLPProjector
from kd_env.models.networks import build
from kd_env.types import Decision, ModelOutput

VARIANTS = ("feature_ensemble", "consistent_surrogate", "prior_surrogate")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def loss_of(kind, student, teacher):
    student, teacher = (ModelOutput(torch.zeros(len(one), 2), torch.as_tensor(one, dtype=torch.float64)) for one in (student, teacher))
    return kind.loss(student, kind.target(teacher))


# Directions


def test_hint_by_hand():
    student, teacher = [[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, -5.0]]
    assert loss_of(Hint(), student, teacher).tolist() == [10.0, 24.5]  # (4 + 16) / 2, 49 / 2
    # (3/5, 4/5) - (1, 0): 4/25 + 16/25; opposite directions are 2 apart
    assert loss_of(Hint(normalized=True), student, teacher).tolist() == pytest.approx([0.8, 4.0])


def test_a_normalized_hint_is_twice_the_cosine_loss():
    student, teacher = draw(6, 5), draw(6, 5, seed=1)
    cosine = 1.0 - torch.cosine_similarity(student, teacher)
    torch.testing.assert_close(0.5 * loss_of(Hint(normalized=True), student, teacher), cosine)


def test_feature_ensemble_by_hand():
    student, teacher = [[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 5.0]]
    assert loss_of(FeatureEnsemble(), student, teacher).tolist() == pytest.approx([1.2, 0.0])  # 2/5 + 4/5; one direction


def test_the_maps_of_the_feature_ensemble_bend(digits_data):
    made = MLPProjector(build("mlp(width=3)", digits_data.task, 0), 3, [1, 2])
    with torch.no_grad():
        first, _, second = made.bends[0]
        first.weight.copy_(torch.tensor([[1.0, -1.0, 0.0]]))
        first.bias.fill_(0.5)
        second.weight.fill_(-2.0)
        second.bias.fill_(1.0)
        found = made.bends[0](torch.tensor([[2.0, 1.0, 9.0], [0.0, 1.0, 9.0]]))
    assert found.tolist() == [[-2.0], [1.0]]  # 1 - 2 * 1.5; 1 - 2 * max(-.5, 0)


# Channels in the student's order


def test_consistent_by_hand():
    # the student's channels are the teacher's, exchanged; the second example is off by 1 in one of them
    student, teacher = [[1.0, 4.0], [2.0, 0.0]], [[4.0, 1.0], [0.0, 3.0]]
    assert match(tensor(student), tensor(teacher)).tolist() == [1, 0]
    assert loss_of(ConsistentSurrogate(), student, teacher).tolist() == [0.0, 0.5]
    assert loss_of(Hint(), student, teacher).tolist() == [9.0, 6.5]


def test_no_permutation_of_the_channels_is_nearer():
    student, teacher = draw(3, 5), draw(3, 5, seed=1)
    every = [loss_of(Hint(), student, teacher[:, list(order)]).sum() for order in itertools.permutations(range(5))]
    assert float(loss_of(ConsistentSurrogate(), student, teacher).sum()) == pytest.approx(float(min(every)))
    assert min(every) < 0.9 * every[0]


def test_the_teachers_order_of_channels_does_not_matter():
    student, teacher = draw(6, 5), draw(6, 5, seed=1)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(loss_of(ConsistentSurrogate(), student, teacher[:, order]), loss_of(ConsistentSurrogate(), student, teacher))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_student_that_diverges_does_not_stop_the_others(value):
    students, teachers = torch.stack([draw(4, 3), torch.full((4, 3), value, dtype=torch.float64)]), draw(2, 4, 3, seed=1)
    found = torch.func.vmap(match)(students, teachers)
    assert found[0].tolist() == match(students[0], teachers[0]).tolist()
    assert sorted(found[1].tolist()) == [0, 1, 2]


# What the teacher fills in


def test_cka_by_hand():
    one = tensor([[1.0], [-1.0], [0.0]])
    assert float(cka(one, -3.0 * one + 5.0)) == pytest.approx(1.0)
    # Gram matrices of (1, -1, 0) and (1, 1, -2), which are orthogonal: (1^T 2)^2 = 0
    assert float(cka(one, tensor([[1.0], [1.0], [-2.0]]))) == pytest.approx(0.0, abs=1e-15)
    # (1, -1, 0) and (0, 1, -1): (-1)^2 over 2 * 2
    assert float(cka(one, tensor([[0.0], [1.0], [-1.0]]))) == pytest.approx(0.25)
    assert float(cka(one, tensor([[2.0], [2.0], [2.0]]))) == 1.0, "nothing to compare"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_cka_is_that_of_the_features_and_of_any_size(scale):
    one, other = draw(8, 3), draw(8, 5, seed=1)
    ours, theirs = one - one.mean(0), other - other.mean(0)
    expected = (ours.T @ theirs).norm() ** 2 / ((ours.T @ ours).norm() * (theirs.T @ theirs).norm())
    torch.testing.assert_close(cka(scale * one, other), expected)
    torch.testing.assert_close(cka((scale * one).float(), other.float()), expected.float(), rtol=1e-4, atol=1e-6)


def test_prior_by_hand():
    # (0, 1, -1) moved by .9: CKA .25 as above, so three quarters are given; turns are |t| mod 1: .9, .9, .1
    student, teacher = tensor([[1.0], [-1.0], [0.0]]), tensor([[0.9], [1.9], [-0.1]])
    assert turns(teacher).flatten().tolist() == pytest.approx([0.9, 0.9, 0.1])
    assert loss_of(PriorSurrogate(), student, teacher).tolist() == pytest.approx([0.01, 8.41, 0.0])
    apart = tensor([[1.0], [1.0], [-2.0]])
    assert loss_of(PriorSurrogate(), student, apart).tolist() == [0.0] * 3, "no likeness: all of it is given"


def test_where_features_agree_the_prior_is_empty_and_the_loss_is_the_hint():
    teacher = draw(6, 5)
    student = 2.0 * teacher + 1.0
    assert float(cka(student, teacher)) == pytest.approx(1.0)
    torch.testing.assert_close(loss_of(PriorSurrogate(), student, teacher), loss_of(Hint(), student, teacher))
    assert loss_of(PriorSurrogate(), student[:1], teacher[:1]).equal(loss_of(Hint(), student[:1], teacher[:1])), "one example has no CKA"


def test_the_nearer_the_features_the_more_is_asked():
    teacher, other = draw(200, 8), draw(200, 8, seed=1)  # few examples of many channels look alike by chance
    asked = []
    for nearness in (0.0, 0.5, 1.0, 10.0):
        student = nearness * teacher + other
        part = student.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(PriorSurrogate(), part, teacher).sum(), part)
        asked.append(float((gradient != 0.0).double().mean()))
        assert asked[-1] == pytest.approx(float(cka(student, teacher)), abs=0.05), "evenly spread turns"
    assert asked == sorted(asked)
    assert asked[0] < 0.15
    assert asked[-1] > 0.9


def test_turns_are_even_in_each_row_and_differ_between_rows():
    found = turns(draw(40, 21))
    gaps = found.sort(1).values.diff(dim=1)
    assert float(gaps.max()) < 2.7 / 21, "multiples of the golden ratio leave no gap much larger than the mean"
    assert float(gaps.min()) > 0.35 / 21
    torch.testing.assert_close((found[:, 1] - found[:, 0]) % 1.0, torch.full((40,), GOLDEN, dtype=torch.float64))
    assert ((found < 0.5).any(0) & (found >= 0.5).any(0)).all(), "every channel is asked of some and given to others"


# In a run


def start(data, **keywords):
    keywords = {"student": "mlp(width=8)", "batch_size": 16, "updates": 40, "optimizer": "adam(lr=0.01)", **keywords}
    return Distillation(data, settings(data.task, **keywords), 0)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("students", [1, 2])
def test_it_teaches_beside_a_hint(digits_data, name, students):
    run = start(digits_data, knowledge=f"response,hint,{name}", num_students=students)
    rows = 16 * students
    weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers)
    measured, losses = "hint" if name == "prior_surrogate" else name, []  # the prior asks for more as the student comes nearer
    for _ in range(40):
        losses.append(float(run.per_teacher_loss(measured, 1.0).detach().mean()))
        run.apply(Decision({name: weights}, {name: 1.0}, 1.0))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3]), losses
    if students == 1:
        of_variant = [value for key, value in run.student.network.named_parameters() if "bends" in key]
        assert len(of_variant) == (4 * run.num_teachers if name == "feature_ensemble" else 0)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_population_is_taught_as_each_alone(digits_data, name):
    options = {"knowledge": f"response,{name}", "precision": "float64"}
    pair, alone = start(digits_data, num_students=2, **options), start(digits_data, **options)
    for run in (pair, alone):
        for _ in range(3):
            rows = 16 * run.num_students
            weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers, dtype=torch.float64)
            run.apply(Decision({name: weights}, {name: 1.0}, 1.0))
    torch.testing.assert_close(
        pair.per_teacher_loss(name, 1.0)[:16].detach(), alone.per_teacher_loss(name, 1.0).detach(), rtol=1e-6, atol=1e-9
    )
