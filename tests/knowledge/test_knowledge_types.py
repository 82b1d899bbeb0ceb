"""What holds for every knowledge type: derivatives by finite differences, and what must not change a loss."""

import warnings

import numpy as np
import pytest
import torch
from comparing import draw, random_context, random_output, with_compared
from torch.autograd import forward_ad

from kd_env.distillation import Distillation
from kd_env.distillation.settings import distillation_settings
from kd_env.knowledge import LossContext
from kd_env.knowledge.attention import Attention
from kd_env.knowledge.consistent import ConsistentSurrogate
from kd_env.knowledge.contrast import Contrast
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.feature_ensemble import FeatureEnsemble, MLPProjector
from kd_env.knowledge.hint import Hint
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.prior import PriorSurrogate
from kd_env.knowledge.relation import Relation
from kd_env.knowledge.response import Response
from kd_env.knowledge.similarity import Similarity
from kd_env.types import Decision

TYPES = {
    "response": Response(),
    "tckd": TargetClass(),
    "nckd": NonTargetClass(),
    "tckd, class of the teacher": TargetClass("teacher"),
    "nckd, class of the teacher": NonTargetClass("teacher"),
    "contrast": Contrast(),
    "layer": Layer(),
    "layer, normalized": Layer(normalized=True),
    "hint": Hint(),
    "hint, normalized": Hint(normalized=True),
    "feature ensemble": FeatureEnsemble(),
    "consistent": ConsistentSurrogate(),
    "prior": PriorSurrogate(),
    "relation": Relation(),
    "distance": Similarity("distance"),
    "angle": Similarity("angle"),
    "preserving": Similarity("preserving"),
    "attention": Attention(),
    "attention alone": Attention(values=False),
}
every_type = pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)


def losses_at(kind, teacher):
    """Losses as a function of the student's compared output."""
    target, student, context = kind.target(teacher), random_output(batch=len(teacher.logits)), random_context(len(teacher.logits))
    return lambda values: kind.loss_in_context(with_compared(kind, values, student), target, context)


@every_type
def test_gradient_is_that_of_finite_differences(kind):
    real = [4, 4, 3, 4, 2]
    student, teacher = random_output(real=real), random_output(seed=10, real=real, width=4 if kind.projector else 6)
    losses, values = losses_at(kind, teacher), getattr(student, kind.compares).clone().requires_grad_()
    weights = torch.linspace(0.5, 2.0, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * losses(values)).sum(), values)
    flat, step = values.detach().flatten(), 1e-6
    for i in range(len(flat)):
        if kind.compares == "attention" and flat[i] == 0.0:
            continue  # padding: not at liberty to change
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[i] += sign * step
            ends.append(float((weights * losses(moved.view_as(values))).sum()))
        assert float(gradient.flatten()[i]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-8)


@every_type
def test_forward_mode_gives_the_same_derivative(kind):
    student, teacher, direction = random_output(), random_output(seed=10), random_output(seed=20)
    losses, values = losses_at(kind, teacher), getattr(student, kind.compares)
    _, expected = torch.autograd.functional.jvp(losses, values, getattr(direction, kind.compares))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, on first use
        with forward_ad.dual_level():
            along = losses(forward_ad.make_dual(values, getattr(direction, kind.compares)))
            torch.testing.assert_close(forward_ad.unpack_dual(along).tangent, expected)


@every_type
@pytest.mark.parametrize("shared", [False, True], ids=["targets of their own", "one target"])
def test_many_students_at_once_equal_a_loop(kind, shared):
    students = [getattr(random_output(seed=seed), kind.compares) for seed in (0, 40, 80)]
    targets = [kind.target(random_output(seed=10 if shared else 10 + seed, width=4 if kind.projector else 6)) for seed in range(3)]
    output, labels = random_output(), random_context().labels

    def loss(values, target, labels):
        return kind.loss_in_context(with_compared(kind, values, output), target, LossContext(1.5, labels))

    every = (torch.stack(students), targets[0] if shared else torch.stack(targets), torch.stack([labels] * 3))
    dims = (0, None if shared else 0, 0)
    together = torch.func.vmap(loss, dims)(*every)
    torch.testing.assert_close(together, torch.stack([loss(*each, labels) for each in zip(students, targets, strict=True)]))
    gradients = torch.func.vmap(torch.func.grad(lambda *arguments: loss(*arguments).sum()), dims)(*every)
    alone = [torch.func.grad(lambda *arguments: loss(*arguments).sum())(*each, labels) for each in zip(students, targets, strict=True)]
    torch.testing.assert_close(gradients, torch.stack(alone))


@every_type
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_like_the_teacher_has_no_loss_and_no_pull(kind, dtype):
    teacher = random_output(seed=10, dtype=dtype, real=[4, 4, 4, 4, 2])
    values = getattr(teacher, kind.compares).clone().requires_grad_()
    losses = losses_at(kind, teacher)(values)
    assert losses.dtype == dtype
    assert losses.shape == (5,)
    torch.testing.assert_close(losses, torch.zeros(5, dtype=dtype), rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-13)
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    if kind.compares != "attention":  # there the rows cannot leave the simplex: the gradient is the same for all keys
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert gradient.isfinite().all()


@every_type
def test_losses_are_not_negative_and_follow_the_order_of_the_batch(kind):
    student, teacher = random_output(batch=9), random_output(seed=10, batch=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled, context = with_compared(kind, getattr(student, kind.compares)[order], student), random_context(9)
    losses = kind.loss_in_context(student, kind.target(teacher), context)
    assert losses.min() > 0
    other = kind.loss_in_context(shuffled, kind.target(teacher)[order], LossContext(1.5, context.labels[order]))
    torch.testing.assert_close(other, losses[order])


@every_type
def test_an_example_alone_has_its_own_loss_or_none(kind):
    student, teacher = random_output(batch=1), random_output(seed=10, batch=1)
    values = getattr(student, kind.compares).clone().requires_grad_()
    losses = losses_at(kind, teacher)(values)
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    assert gradient.isfinite().all()
    if isinstance(kind, Similarity | Contrast):
        assert losses.tolist() == [0.0]
    else:
        whole = losses_at(kind, random_output(seed=10))(getattr(random_output(), kind.compares))
        assert whole[0] > 0
        assert losses[0] > 0


@pytest.mark.parametrize(
    "kind", [kind for kind in TYPES.values() if not isinstance(kind, Similarity | Contrast | ConsistentSurrogate | PriorSurrogate)]
)
def test_other_examples_do_not_matter(kind):
    student, other, teacher = random_output(), random_output(seed=50), random_output(seed=10)
    changed = torch.cat([getattr(student, kind.compares)[:2], getattr(other, kind.compares)[2:]])
    losses = losses_at(kind, teacher)
    assert losses(changed)[:2].equal(losses(getattr(student, kind.compares))[:2])


def far(kind, values, scale):
    return (values == values.amax(-1, keepdim=True)).to(values.dtype) if kind.compares == "attention" else scale * values.sign()


@every_type
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student_far", [False, True])
@pytest.mark.parametrize("teacher_far", [False, True])
def test_sharp_outputs_give_finite_losses_and_gradients(kind, dtype, student_far, teacher_far):
    student, teacher = (getattr(random_output(seed=seed, dtype=dtype), kind.compares) for seed in (0, 10))
    values = (far(kind, student, 1e4) if student_far else student.clone()).requires_grad_()
    losses = losses_at(kind, with_compared(kind, far(kind, teacher, -1e4) if teacher_far else teacher, random_output()))(values)
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    assert gradient.isfinite().all()


@every_type
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("teacher_zero", [False, True])
def test_zero_vectors_give_finite_losses_and_derivatives(kind, batch, teacher_zero):
    teacher = getattr(random_output(seed=10, batch=batch), kind.compares)
    losses = losses_at(kind, with_compared(kind, 0 * teacher if teacher_zero else teacher, random_output(batch=batch)))
    values = torch.zeros_like(teacher).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(values).sum(), values)
    assert losses(values).isfinite().all()
    assert (losses(values) >= 0).all()
    assert gradient.abs().max() < (1e4 if kind.compares != "attention" else 1e-9), "no direction, no jump"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            along = losses(forward_ad.make_dual(values.detach(), torch.ones_like(values)))
            assert forward_ad.unpack_dual(along).tangent.isfinite().all()


@pytest.mark.parametrize("kind", [Relation(), Similarity(), Similarity("angle"), Similarity("preserving")])
def test_scale_and_rotation_do_not_matter(kind):
    student, teacher = random_output(), random_output(seed=10, width=7)
    rotation, _ = torch.linalg.qr(draw(4, 4, seed=3))
    losses = losses_at(kind, teacher)
    torch.testing.assert_close(losses(-3.0 * getattr(student, kind.compares) @ rotation), losses(getattr(student, kind.compares)))


@pytest.mark.parametrize("kind", [Similarity(), Similarity("angle"), Contrast()])
def test_what_all_examples_share_does_not_matter(kind):
    student, losses = getattr(random_output(), kind.compares), losses_at(kind, random_output(seed=10))
    torch.testing.assert_close(losses(student + draw(1, 4, seed=5)), losses(student))


# In a run


VARIANTS = ("feature_ensemble", "consistent_surrogate", "prior_surrogate")


def start(data, **keywords):
    keywords = {"student": "mlp(width=8)", "batch_size": 16, "updates": 40, "optimizer": "adam(lr=0.01)", **keywords}
    return Distillation(data, distillation_settings(data.task, **keywords), 0)


@pytest.mark.long
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("students", [1, 2])
def test_it_teaches_beside_a_hint(digits_data, name, students):
    run = start(digits_data, knowledge=f"response,hint,{name}", num_students=students)
    rows = 16 * students
    weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers)
    measured, losses = "hint" if name == "prior_surrogate" else name, []  # the prior leaves more channels as features agree
    for _ in range(40):
        losses.append(float(run.per_teacher_loss(measured, 1.0).detach().mean()))
        run.apply(Decision({name: weights}, {name: 1.0}, 1.0))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3]), losses
    if students == 1:
        projectors = [module for module in run.student.network.modules() if isinstance(module, MLPProjector)]
        assert len(projectors) == (name == "feature_ensemble")
        assert all(len(list(projector.mlps.parameters())) == 4 * run.num_teachers for projector in projectors)


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
