"""The knowledge types: values worked out by hand, derivatives by finite differences, and what must not change them."""

import itertools
import math
import warnings

import pytest
import torch
from torch.autograd import forward_ad

from kd_env.errors import InputError
from kd_env.knowledge.attention import Attention
from kd_env.knowledge.consistent import ConsistentSurrogate
from kd_env.knowledge.contrast import Contrast
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.feature_ensemble import FeatureEnsemble
from kd_env.knowledge.hint import Hint
from kd_env.knowledge.layer import Layer, norm, unit
from kd_env.knowledge.prior import PriorSurrogate
from kd_env.knowledge.relation import Relation
from kd_env.knowledge.response import Response
from kd_env.knowledge.similarity import Similarity
from kd_env.types import ModelOutput

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


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def said(seed=0, batch=5, width=4, depth=3, tokens=4, real=None, dtype=torch.float64):
    """Random outputs; ``real`` says how many tokens of each example are no padding."""
    mask = torch.ones(batch, 1, tokens, dtype=dtype)
    for b, count in enumerate(real or []):
        mask[b, :, count:] = 0.0
    scores = draw(batch, 2, tokens, tokens, seed=seed + 3, dtype=dtype).exp() * mask[:, :, None]
    return ModelOutput(
        logits=2 * draw(batch, 4, seed=seed, dtype=dtype),
        features=draw(batch, width, seed=seed + 1, dtype=dtype),
        layers=draw(batch, depth, width, seed=seed + 2, dtype=dtype),
        attention=scores / scores.sum(3, keepdim=True) * mask[..., None],
        labels=torch.arange(batch) % 4,
        temperature=1.5,
    )


def extra_outputs(kind, part, output):
    """``output`` with ``part`` where ``kind`` looks."""
    return output._replace(**{kind.needs: part})


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def only(**parts):
    """Two classes' worth of nothing, and ``parts``."""
    size = len(next(iter(parts.values())))
    return ModelOutput(**{"logits": torch.zeros(size, 2), "features": torch.zeros(size, 1), **parts})


def loss_of(kind, student, teacher):
    return kind.loss(only(**{kind.needs: tensor(student)}), kind.target(only(**{kind.needs: tensor(teacher)}))).tolist()


# Values by hand


def test_feature_by_hand():
    student, teacher = [[[1.0, 2.0], [3.0, 4.0]]], [[[0.0, 0.0], [1.0, 1.0]]]
    assert loss_of(Layer(), student, teacher) == pytest.approx([4.5])  # (1 + 4 + 4 + 9) / 4


def test_hint_by_hand():
    assert loss_of(Hint(), [[1.0, 2.0], [0.0, -1.0]], [[0.0, 4.0], [0.0, -1.0]]) == pytest.approx([2.5, 0.0])  # (1 + 4) / 2


def test_normalized_feature_by_hand():
    student, teacher = [[[3.0, 4.0], [0.0, 2.0]]], [[[1.0, 0.0], [0.0, 5.0]]]
    # (3/5, 4/5) - (1, 0): 4/25 + 16/25 = .8; the second layers have one direction
    assert loss_of(Layer(normalized=True), student, teacher) == pytest.approx([0.4])


def test_relation_by_hand():
    student, teacher = [[[1.0, 0.0], [3.0, 3.0]]], [[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]
    assert loss_of(Relation(), student, teacher) == pytest.approx(
        [0.25]
    )  # cosines 1/sqrt(2) and 0: two of four entries differ by 1/2 squared


def test_distance_by_hand():
    student, teacher = [[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], [[0.0], [1.0], [3.0]]
    # student 3, 4, 5 over 4: .75, 1, 1.25; teacher 1, 3, 2 over 2: .5, 1.5, 1; half of .0625, .25 and .0625
    assert loss_of(Similarity(), student, teacher) == pytest.approx([0.078125, 0.03125, 0.078125])


def test_distance_is_linear_beyond_one():
    student, teacher = [[0.0], [2.0], [1.0]], [[0.0], [0.0], [1.0]]
    # student 2, 1, 1 over 4/3: 1.5, .75, .75; teacher 0, 1, 1 over 2/3: 0, 1.5, 1.5; 1.5 - .5 = 1 and twice .75^2 / 2 = .28125
    assert loss_of(Similarity(), student, teacher) == pytest.approx([0.640625, 0.640625, 0.28125])


def test_angle_by_hand():
    student, teacher = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [2.0, 0.0], [1.0, 3**0.5]]
    # cosines of 90, 45, 45 degrees against 60, 60, 60; .5^2 / 2 and (.70710678 - .5)^2 / 2
    assert loss_of(Similarity("angle"), student, teacher) == pytest.approx([0.125, 0.0214466, 0.0214466], abs=1e-7)


def test_preserving_by_hand():
    student, teacher = [[1.0, 0.0], [0.0, 3.0]], [[1.0], [1.0]]
    # rows (1, 0), (0, 1) against (.70710678, .70710678) twice: (.08578644 + .5) / 2
    assert loss_of(Similarity("preserving"), student, teacher) == pytest.approx([0.29289322] * 2)


ROWS = [[0.25, 0.75], [0.5, 0.5]], [[0.5, 0.5], [1.0, 0.0]]  # student, teacher: KL .1438410 and ln 2
SAME = [[0.25, 0.75], [0.25, 0.75]], [[0.5, 0.5], [0.5, 0.5]]  # KL .1438410 = ln(4/3) / 2, twice


def test_attention_by_hand():
    student, teacher = ([[one, other]] for one, other in zip(ROWS, SAME, strict=True))
    assert loss_of(Attention(values=False), student, teacher) == pytest.approx([0.41849411])  # (.14384104 + .69314718) / 2
    assert loss_of(Attention(), student, teacher) == pytest.approx([0.56233515])  # and .14384104


def padded(rows, tokens=3):
    whole = torch.zeros(tokens, tokens, dtype=torch.float64)
    whole[:2, :2] = tensor(rows)
    return whole.tolist()


@pytest.mark.parametrize(("student_tokens", "teacher_tokens"), [(3, 3), (2, 5), (5, 2), (3, 4)])
def test_attention_skips_padding(student_tokens, teacher_tokens):
    student = [[padded(one[0], student_tokens) for one in (ROWS, SAME)]]
    teacher = [[padded(one[1], teacher_tokens) for one in (ROWS, SAME)]]
    assert loss_of(Attention(), student, teacher) == pytest.approx([0.56233515])


def test_attention_where_the_student_does_not_look_costs_the_floor():
    student, teacher = [[[[0.0, 1.0], [0.0, 1.0]]]], [[[[1.0, 0.0], [0.0, 1.0]]]]
    assert loss_of(Attention(values=False), student, teacher) == pytest.approx([10 * math.log(10)])  # -ln 1e-20 over two tokens


P, Q = [1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("label", "target_class", "non_target_class"), [(0, 0.14384104, 0.05889152), (1, 0.0, 0.23104906)])
def test_decoupled_by_hand(temperature, label, target_class, non_target_class):
    # true class 0: (1/2, 1/2) against (1/4, 3/4): ln(4/3) / 2; the others (1/2, 1/2) against (1/3, 2/3): ln(9/8) / 2
    # true class 1: (1/4, 3/4) against itself; the others (2/3, 1/3) against (1/3, 2/3): ln(2) / 3
    teacher, student = (temperature * tensor([one]).log() + 0.3 for one in (P, Q))
    own = only(logits=student)._replace(labels=torch.tensor([label]), temperature=temperature)
    for kind, expected in ((TargetClass(), target_class), (NonTargetClass(), non_target_class)):
        assert kind.loss(own, teacher).tolist() == pytest.approx([temperature**2 * expected], abs=1e-7)


def test_decoupled_around_the_teacher_s_own_class_reads_no_label():
    # teacher 0 is surest of class 0, teacher 1 (its classes reversed) of class 2: see the values for label 0 above, and
    # (1/2, 1/2) against itself, the others (1/2, 1/2) against (1/2, 1/2)
    teachers, student = tensor([[P, P[::-1]]]).log() + 0.3, tensor([[Q]]).log()
    own = only(logits=student)
    assert TargetClass("teacher").loss(own, teachers).flatten().tolist() == pytest.approx([0.14384104, 0.0], abs=1e-7)
    assert NonTargetClass("teacher").loss(own, teachers).flatten().tolist() == pytest.approx([0.05889152, 0.0], abs=1e-7)
    for kind in (TargetClass, NonTargetClass):
        assert kind().reads_labels
        assert not kind("teacher").reads_labels
        with pytest.raises(InputError, match="class_of='nobody': it must be one of label, teacher"):
            kind("nobody")


def test_contrast_by_hand():
    student, teacher = [[2.0, 1.0], [0.0, 0.0], [5.0, 3.0]], [[1.0, 1.0], [0.0, 0.0], [5.0, 1.0]]
    # errors (1, 0), (0, 0), (0, 2); squared distances over two classes: .5 of 0 and 1, 2.5 of 0 and 2, 2 of 1 and 2
    assert loss_of(Contrast(), student, teacher) == pytest.approx([1.5, 1.25, 2.25])


# The papers' formulas, by loops


def test_mean_distance_loss_is_rkd_over_the_pairs():
    student, teacher = draw(6, 3), draw(6, 5, seed=1)
    pairs = list(itertools.permutations(range(6), 2))

    def distances(points):
        plain = [math.dist(points[i], points[j]) for i, j in pairs]
        return [value / (sum(plain) / 30) for value in plain]

    gaps = [abs(s - t) for s, t in zip(distances(student.tolist()), distances(teacher.tolist()), strict=True)]
    expected = sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps) / 30
    assert float(Similarity().loss(only(features=student), teacher).mean()) == pytest.approx(expected)


def test_mean_angle_loss_is_rkd_over_the_triplets():
    points = {"student": draw(5, 3), "teacher": draw(5, 2, seed=1)}

    def cosine(x, i, j, k):
        return float(torch.cosine_similarity(x[i] - x[j], x[k] - x[j], 0))

    triplets = list(itertools.permutations(range(5), 3))
    gaps = [abs(cosine(points["student"], *each) - cosine(points["teacher"], *each)) for each in triplets]
    expected = sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps) / 60
    assert float(Similarity("angle").loss(only(features=points["student"]), points["teacher"]).mean()) == pytest.approx(expected)


def test_mean_preserving_loss_is_the_papers():
    student, teacher = draw(6, 3), draw(6, 5, seed=1)
    gram = [torch.nn.functional.normalize(x @ x.T, dim=1) for x in (student, teacher)]
    expected = (gram[0] - gram[1]).norm() ** 2 / 36
    assert float(Similarity("preserving").loss(only(features=student), teacher).mean()) == pytest.approx(float(expected))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_two_decoupled_parts_add_up_to_the_response(scale, classes):
    student, teacher, labels = scale * draw(20, classes), scale * draw(20, classes, seed=1), torch.arange(20) % classes
    own = only(logits=student)._replace(labels=labels, temperature=2.5)
    first, second = (kind.loss(own, teacher) for kind in (TargetClass(), NonTargetClass()))
    others = torch.stack([teacher[b, torch.arange(classes) != labels[b]] for b in range(20)])
    without = ((others / 2.5).logsumexp(1) - (teacher / 2.5).logsumexp(1)).exp()  # 1 - p_t
    torch.testing.assert_close(first + without * second, Response().loss(own, teacher), rtol=1e-9, atol=1e-9)
    if classes == 2:
        assert not second.any()


@pytest.mark.parametrize("kind", [Response(), TargetClass(), NonTargetClass()])
@pytest.mark.parametrize("given", ["float", "tensor"])
def test_one_call_serves_all_teachers_at_any_temperature(kind, given):
    own, teachers = said(), draw(5, 3, 4, seed=9)
    temperature = torch.linspace(0.5, 4.0, 5, dtype=torch.float64)[:, None] if given == "tensor" else 2.0
    wide = temperature[:, None] if given == "tensor" else temperature
    together = kind.loss(own._replace(logits=own.logits[:, None], labels=own.labels[:, None], temperature=wide), teachers)
    assert together.shape == (5, 3)
    for b, k in itertools.product(range(5), range(3)):
        one = own._replace(
            logits=own.logits[b : b + 1],
            labels=own.labels[b : b + 1],
            temperature=float(temperature[b]) if given == "tensor" else temperature,
        )
        assert float(kind.loss(one, teachers[b : b + 1, k])) == pytest.approx(float(together[b, k]), rel=1e-12)


# What holds for every type


def losses_at(kind, teacher):
    target, own = kind.target(teacher), said(batch=len(teacher.logits))
    return lambda part: kind.loss(extra_outputs(kind, part, own), target)


@every_type
def test_gradient_is_that_of_finite_differences(kind):
    real = [4, 4, 3, 4, 2]
    own, teacher = said(real=real), said(seed=10, real=real, width=4 if kind.projects else 6)
    losses, part = losses_at(kind, teacher), getattr(own, kind.needs).clone().requires_grad_()
    weights = torch.linspace(0.5, 2.0, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * losses(part)).sum(), part)
    flat, step = part.detach().flatten(), 1e-6
    for i in range(len(flat)):
        if kind.needs == "attention" and flat[i] == 0.0:
            continue  # padding: not at liberty to change
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[i] += sign * step
            ends.append(float((weights * losses(moved.view_as(part))).sum()))
        assert float(gradient.flatten()[i]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-8)


@every_type
def test_forward_mode_gives_the_same_derivative(kind):
    own, teacher, direction = said(), said(seed=10), said(seed=20)
    losses, part = losses_at(kind, teacher), getattr(own, kind.needs)
    _, expected = torch.autograd.functional.jvp(losses, part, getattr(direction, kind.needs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, on first use
        with forward_ad.dual_level():
            along = losses(forward_ad.make_dual(part, getattr(direction, kind.needs)))
            torch.testing.assert_close(forward_ad.unpack_dual(along).tangent, expected)


@every_type
@pytest.mark.parametrize("shared", [False, True], ids=["targets of their own", "one target"])
def test_many_students_at_once_equal_a_loop(kind, shared):
    students = [getattr(said(seed=seed), kind.needs) for seed in (0, 40, 80)]
    targets = [kind.target(said(seed=10 if shared else 10 + seed, width=4 if kind.projects else 6)) for seed in range(3)]
    own = said()
    labels = own.labels

    def loss(part, target, labels):
        return kind.loss(extra_outputs(kind, part, own._replace(labels=labels)), target)

    every = (torch.stack(students), targets[0] if shared else torch.stack(targets), torch.stack([labels] * 3))
    dims = (0, None if shared else 0, 0)
    together = torch.func.vmap(loss, dims)(*every)
    torch.testing.assert_close(together, torch.stack([loss(*each, labels) for each in zip(students, targets, strict=True)]))
    gradients = torch.func.vmap(torch.func.grad(lambda *given: loss(*given).sum()), dims)(*every)
    alone = [torch.func.grad(lambda *given: loss(*given).sum())(*each, labels) for each in zip(students, targets, strict=True)]
    torch.testing.assert_close(gradients, torch.stack(alone))


@every_type
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_like_the_teacher_has_no_loss_and_no_pull(kind, dtype):
    teacher = said(seed=10, dtype=dtype, real=[4, 4, 4, 4, 2])
    part = getattr(teacher, kind.needs).clone().requires_grad_()
    losses = losses_at(kind, teacher)(part)
    assert losses.dtype == dtype
    assert losses.shape == (5,)
    torch.testing.assert_close(losses, torch.zeros(5, dtype=dtype), rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-13)
    (gradient,) = torch.autograd.grad(losses.sum(), part)
    if kind.needs != "attention":  # there the rows cannot leave the simplex: the gradient is the same for all keys
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert gradient.isfinite().all()


@every_type
def test_losses_are_not_negative_and_follow_the_order_of_the_batch(kind):
    own, teacher = said(batch=9), said(seed=10, batch=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = own._replace(**{kind.needs: getattr(own, kind.needs)[order], "labels": own.labels[order]})
    losses = kind.loss(own, kind.target(teacher))
    assert losses.min() > 0
    torch.testing.assert_close(kind.loss(shuffled, kind.target(teacher)[order]), losses[order])


@every_type
def test_an_example_alone_has_its_own_loss_or_none(kind):
    own, teacher = said(batch=1), said(seed=10, batch=1)
    part = getattr(own, kind.needs).clone().requires_grad_()
    losses = losses_at(kind, teacher)(part)
    (gradient,) = torch.autograd.grad(losses.sum(), part)
    assert gradient.isfinite().all()
    if isinstance(kind, Similarity | Contrast):
        assert losses.tolist() == [0.0]
    else:
        whole = losses_at(kind, said(seed=10))(getattr(said(), kind.needs))
        assert whole[0] > 0
        assert losses[0] > 0


@pytest.mark.parametrize(
    "kind", [kind for kind in TYPES.values() if not isinstance(kind, Similarity | Contrast | ConsistentSurrogate | PriorSurrogate)]
)
def test_other_examples_do_not_matter(kind):
    own, other, teacher = said(), said(seed=50), said(seed=10)
    changed = torch.cat([getattr(own, kind.needs)[:2], getattr(other, kind.needs)[2:]])
    losses = losses_at(kind, teacher)
    assert losses(changed)[:2].equal(losses(getattr(own, kind.needs))[:2])


def far(kind, part, scale):
    return (part == part.amax(-1, keepdim=True)).to(part.dtype) if kind.needs == "attention" else scale * part.sign()


@every_type
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student_far", [False, True])
@pytest.mark.parametrize("teacher_far", [False, True])
def test_sharp_outputs_give_finite_losses_and_gradients(kind, dtype, student_far, teacher_far):
    own, teacher = (getattr(said(seed=seed, dtype=dtype), kind.needs) for seed in (0, 10))
    part = (far(kind, own, 1e4) if student_far else own.clone()).requires_grad_()
    losses = losses_at(kind, extra_outputs(kind, far(kind, teacher, -1e4) if teacher_far else teacher, said()))(part)
    (gradient,) = torch.autograd.grad(losses.sum(), part)
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    assert gradient.isfinite().all()


@every_type
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("teacher_zero", [False, True])
def test_zero_vectors_give_finite_losses_and_derivatives(kind, batch, teacher_zero):
    teacher = getattr(said(seed=10, batch=batch), kind.needs)
    losses = losses_at(kind, extra_outputs(kind, 0 * teacher if teacher_zero else teacher, said(batch=batch)))
    part = torch.zeros_like(teacher).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(part).sum(), part)
    assert losses(part).isfinite().all()
    assert (losses(part) >= 0).all()
    assert gradient.abs().max() < (1e4 if kind.needs != "attention" else 1e-9), "no direction, no jump"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            along = losses(forward_ad.make_dual(part.detach(), torch.ones_like(part)))
            assert forward_ad.unpack_dual(along).tangent.isfinite().all()


def test_coincident_examples_pull_on_nobody():
    features = draw(4, 3)
    features[1] = features[0]
    for kind in (Similarity(), Similarity("angle"), Similarity("preserving")):
        part = features.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(kind.loss(only(features=part), draw(4, 2, seed=1)).sum(), part)
        assert gradient.isfinite().all()
        assert kind.loss(only(features=part), features).abs().max() < 1e-14
    assert loss_of(Similarity(), [[1.0]] * 3, [[2.0]] * 3) == [0.0] * 3


def test_two_examples_have_no_angle_and_one_layer_no_relation():
    assert loss_of(Similarity("angle"), [[1.0], [2.0]], [[2.0], [5.0]]) == [0.0, 0.0]
    for vector in ([1.0, 2.0], [0.0, 0.0]):
        assert loss_of(Relation(), [[vector]], [[[3.0, -4.0, 1.0]]]) == [0.0]


@pytest.mark.parametrize("kind", [Relation(), Similarity(), Similarity("angle"), Similarity("preserving")])
def test_scale_and_rotation_do_not_matter(kind):
    own, teacher = said(), said(seed=10, width=7)
    rotation, _ = torch.linalg.qr(draw(4, 4, seed=3))
    losses = losses_at(kind, teacher)
    torch.testing.assert_close(losses(-3.0 * getattr(own, kind.needs) @ rotation), losses(getattr(own, kind.needs)))


@pytest.mark.parametrize("kind", [Similarity(), Similarity("angle"), Contrast()])
def test_what_all_examples_share_does_not_matter(kind):
    own, losses = getattr(said(), kind.needs), losses_at(kind, said(seed=10))
    torch.testing.assert_close(losses(own + draw(1, 4, seed=5)), losses(own))


def test_normalized_features_are_compared_by_direction():
    own, losses = said().layers, losses_at(Layer(normalized=True), said(seed=10))
    torch.testing.assert_close(losses(own * torch.rand(5, 3, 1, generator=torch.Generator().manual_seed(0)).double()), losses(own))


@pytest.mark.parametrize("scale", [1e-11, 1e-6, 1.0, 1e15])
def test_a_vector_has_its_direction_at_any_size(scale):
    vector = torch.tensor([[3.0, -4.0]], requires_grad=True)
    torch.testing.assert_close(norm(scale * vector), torch.tensor([[5.0 * scale]]))
    torch.testing.assert_close(unit(scale * vector), torch.tensor([[0.6, -0.8]]))
    (gradient,) = torch.autograd.grad(unit(scale * vector).sum(), vector)
    torch.testing.assert_close(
        gradient, torch.tensor([[0.224, 0.168]]), rtol=1e-5, atol=0
    )  # (1, 1) less its share along the vector, over 5


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="distance, angle, preserving"):
        Similarity("cosine")
