"""Terms: how the ``knowledge`` setting is read, and what each type is given to compare."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.envs.settings import settings
from kd_env.errors import InputError
from kd_env.knowledge import KNOWLEDGE, Knowledge
from kd_env.knowledge.terms import Term, end_of_group, extra_parts, losses, parse_terms, spread
from kd_env.types import Batch, Decision, ModelOutput

BOTH = frozenset({"layers", "attention"})


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Gap(Knowledge):
    """A type of one's own: the squared distance of the first logit, times ``scale``."""

    needs: ClassVar = "logits"
    scale: float = 1.0

    def target(self, teacher):
        return teacher.logits[:, 0]

    def loss(self, student, target):
        return self.scale * (student.logits[:, 0] - target).square()


@dataclass(frozen=True)
class Showing(Knowledge):
    """Says what it was given: the number of layers it compares, or, where they differ, -1."""

    needs: ClassVar = "layers"

    def target(self, teacher):
        return teacher.layers

    def loss(self, student, target):
        found = student.layers.shape[1] if student.layers.shape[1] == target.shape[1] else -1
        return 0.0 * student.layers.sum((1, 2)) + found


class Unfit:
    """No Knowledge."""


class Refusing(Gap):
    """A type that cannot be made."""

    def __init__(self):
        raise ValueError("the moon is full")


# Reading


def test_types_have_names_options_and_strengths():
    response, feature, similarity = parse_terms("response, layer(strength=50,normalized=true),similarity(kind=angle,strength=.5)")
    assert (response.name, response.strength) == ("response", 1.0)
    assert response.kind == KNOWLEDGE["response"]()
    assert (feature.name, feature.strength, feature.kind.normalized) == ("layer", 50.0, True)
    assert (similarity.name, similarity.strength, similarity.kind.kind) == ("similarity", 0.5, "angle")


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_every_built_in_type_can_be_named_alone(name):
    (term,) = parse_terms(name)
    assert term == Term(name, KNOWLEDGE[name](), 1.0)


def test_a_type_of_one_s_own_is_named_by_module_and_class():
    name = f"{__name__}:Gap"
    response, own = parse_terms(f"response,{name}(scale=2.5,strength=3)")
    assert (own.name, own.strength) == (name, 3.0)
    assert own.kind == Gap(2.5)
    assert response.name == "response"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("respnse", "unknown knowledge type 'respnse'; did you mean 'response'"),
        ("response,xyz", "unknown knowledge type 'xyz'; known: attention, consistent_surrogate, contrast"),
        ("", "knowledge='': name at least one type"),
        (" , ", "name at least one type"),
        ("response,response", "knowledge='response,response': response is named twice"),
        ("layer,layer(normalized=true)", "layer is named twice"),
        ("label", "the hard label needs no naming, it is there with kd_weight below 1"),
        ("response,label(strength=0.5)", "the hard label needs no naming"),
        ("response(strength=0)", "strength=0 of response must be a number above 0; leave"),
        ("response(strength=-1)", "strength=-1 of response"),
        ("response(strength=strong)", "strength='strong' of response"),
        ("response(strength=true)", "strength=True of response"),
        ("response(strength=1e999)", "strength=inf of response"),
        ("response(strength=nan)", "strength='nan' of response"),
        ("response(strenght=1)", r"knowledge 'response\(strenght=1\)': .*strenght"),
        ("layer(normalised=true)", "normalised.*options: normalized"),
        ("similarity(kind=cosine)", "kind must be one of distance, angle, preserving"),
        ("response(strength=1,strength=2)", "strength is given twice"),
        ("response(strength=1", "expected name"),
        ("response(1)", "expected key=value"),
        ("nowhere:Type", "knowledge type 'nowhere:Type' cannot be imported"),
        (f"{__name__}:Nothing", "cannot be imported"),
        (f"{__name__}:Unfit", "a Unfit is not a kd_env.knowledge.Knowledge; subclass it"),
        (f"{__name__}:Refusing", r"ValueError: the moon is full \(.*test_terms\.py, line \d+\); fix it there"),
        (f"{__name__}:Gap(size=1)", "size.*options: scale"),
    ],
)
def test_what_cannot_be_read_is_named(text, says):
    with pytest.raises(InputError, match=says):
        parse_terms(text)


def test_parts_are_those_that_the_types_need():
    assert extra_parts(parse_terms("response,tckd,nckd,contrast,similarity")) == frozenset()
    assert extra_parts(parse_terms("response,relation")) == extra_parts(parse_terms("layer")) == {"layers"}
    assert extra_parts(parse_terms("attention")) == {"attention"}
    assert extra_parts(parse_terms("attention,layer,relation")) == BOTH


# Layers


@pytest.mark.parametrize(
    ("depth", "count", "chosen"),
    [
        (5, 5, [0, 1, 2, 3, 4]),
        (5, 3, [0, 2, 4]),
        (5, 2, [0, 4]),
        (5, 1, [4]),
        (4, 3, [0, 2, 3]),  # the middle, 1.5, goes to the even one
        (7, 4, [0, 2, 4, 6]),
        (13, 5, [0, 3, 6, 9, 12]),
        (1, 1, [0]),
    ],
)
def test_layers_are_spread_evenly_the_first_and_the_last_among_them(depth, count, chosen):
    layers = draw(2, depth, 3)
    assert torch.equal(spread(layers, count), layers[:, chosen])


def said(students=2, batch=3, teachers=((4, 5), (2, 6)), depth=3, width=4):
    """What ``students`` and teachers of other depths and widths say."""
    rows = students * batch
    student = ModelOutput(
        draw(rows, 4),
        draw(rows, width, seed=1),
        draw(rows, depth, width, seed=2),
        draw(rows, 2, 3, 3, seed=3).softmax(3),
        projected=tuple(draw(rows, min(depth, depth_k), width_k, seed=4) for depth_k, width_k in teachers),
        hints=tuple(draw(rows, width_k, seed=20 + k) for k, (_, width_k) in enumerate(teachers)),
        bent_hints=tuple(draw(rows, width_k, seed=30 + k) for k, (_, width_k) in enumerate(teachers)),
        labels=torch.arange(rows) % 4,
        temperature=2.0,
    )
    features = Batch(
        update=np.zeros(students),
        progress=np.zeros(students),
        example_ids=np.arange(rows),
        labels=torch.arange(rows) % 4,
        teacher_logits=draw(rows, len(teachers), 4, seed=5),
        teacher_features=tuple(draw(rows, width_k, seed=6 + k) for k, (_, width_k) in enumerate(teachers)),
        student=student,
        teacher_layers=tuple(draw(rows, depth_k, width_k, seed=9 + k) for k, (depth_k, width_k) in enumerate(teachers)),
        teacher_attention=tuple(draw(rows, 2, 3, 3, seed=12 + k).softmax(3) for k in range(len(teachers))),
    )
    return student, features


OF_TEACHERS = [name for name, kind in KNOWLEDGE.items() if not kind.of_peers]
TEXTS = [
    *OF_TEACHERS,
    "layer(normalized=true)",
    "hint(normalized=true)",
    "similarity(kind=angle)",
    "similarity(kind=preserving)",
    "attention(values=false)",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("students", [1, 2, 4])
def test_each_student_is_compared_with_each_teacher_on_its_own_rows(text, students):
    (term,), (student, features) = parse_terms(text), said(students)
    every = losses(term.kind, student, features, students)
    mapped = student.bent_hints if term.kind.bends else student.hints
    assert every.shape == (students * 3, 2)
    for s in range(students):
        rows = slice(3 * s, 3 * s + 3)
        for k in range(2):
            mine, theirs = [([0, 1, 2], [0, 2, 3]), ([0, 2], [0, 1])][k]  # layers; of 4 the third of three is 1.5, which rounds to 2
            own = ModelOutput(
                student.logits[rows],
                mapped[k][rows] if term.kind.projects and term.kind.needs == "features" else student.features[rows],
                student.projected[k][rows] if term.kind.projects else student.layers[rows][:, mine],
                student.attention[rows],
                labels=student.labels[rows],
                temperature=2.0,
            )
            other = ModelOutput(
                features.teacher_logits[rows, k],
                features.teacher_features[k][rows],
                features.teacher_layers[k][rows][:, theirs],
                features.teacher_attention[k][rows],
            )
            torch.testing.assert_close(every[rows, k], term.kind.loss(own, term.kind.target(other)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("text", TEXTS)
def test_another_student_s_rows_do_not_matter(text):
    (term,), (student, features) = parse_terms(text), said(2)

    def spoil(part):
        return torch.cat([part[:3], part[3:] * float("nan")])

    parts = {name: spoil(getattr(student, name)) for name in ("logits", "features", "layers", "attention")}
    mapped = {name: tuple(spoil(part) for part in getattr(student, name)) for name in ("projected", "hints", "bent_hints")}
    spoiled = student._replace(**parts, **mapped)
    before, after = (losses(term.kind, one, features, 2)[:3] for one in (student, spoiled))
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("depth", "teachers"), [(3, ((5, 4), (3, 4), (2, 4), (1, 4)))])
def test_both_come_with_the_layers_of_the_shallower(depth, teachers):
    student, features = said(1, 3, teachers, depth)
    assert losses(Showing(), student, features, 1)[0].tolist() == [3.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("text", ["response", "tckd", "nckd"])
@pytest.mark.parametrize("students", [1, 2])
def test_a_temperature_may_differ_by_row(text, students):
    (term,), (student, features) = parse_terms(text), said(students)
    temperatures = torch.linspace(0.5, 4.0, 3 * students, dtype=torch.float64)
    every = losses(term.kind, student._replace(temperature=temperatures[:, None]), features, students)
    for row, temperature in enumerate(temperatures.tolist()):
        alone = losses(term.kind, student._replace(temperature=temperature), features, students)
        torch.testing.assert_close(every[row], alone[row], rtol=1e-12, atol=1e-14)


def test_the_last_layers_of_groups():
    # of 4 layers in 3 groups: 1 and 2 (up to 4/3 and 8/3, rounded up), then the last
    ends = [[end_of_group(k, 3, depth) for k in range(3)] for depth in (1, 2, 3, 4, 7)]
    assert ends == [
        [0, 0, 0],
        [0, 1, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 4, 6],
    ]
    assert [end_of_group(0, 1, depth) for depth in (1, 5)] == [0, 4]


@pytest.mark.parametrize("students", [1, 2])
def test_grouped_features_face_the_last_layer_of_each_teacher(layered_data, students):
    student = "tiny-bert(width=8,layers=3,heads=2,dropout=0)"  # shows four layers; the teachers show 2, 4 and 3
    run = run_of(layered_data, student=student, knowledge="layer(grouped=true)", num_students=students)
    seen, said = run.observe(), run.student_output()
    found = run.per_teacher_loss("layer", 1.0)
    for k, own in enumerate((0, 2, 2)):  # of 2, 4 and 3 mapped layers the first group's, the second's and the third's
        expected = (said.projected[k][:, own] - seen.teacher_layers[k][:, -1]).square().mean(1)
        torch.testing.assert_close(found[:, k], expected)


# In a run


def run_of(data, **keywords):
    keywords = {"student": "mlp(width=8)", "batch_size": 4, "updates": 5, "precision": "float64", "optimizer": "sgd(lr=0.1)", **keywords}
    return Distillation(data, settings(data.task, **keywords), 0)


@pytest.mark.parametrize("students", [1, 3])
def test_a_type_of_one_s_own_teaches(digits_data, students):
    name = f"{__name__}:Gap"
    run = run_of(digits_data, knowledge=f"response,{name}(strength=3)", num_students=students)
    features = run.observe()
    assert list(run.terms) == ["response", name]
    assert run.terms[name].strength == 3.0
    every = run.per_teacher_loss(name, 2.0)
    expected = (features.student.logits[:, None, 0] - features.teacher_logits[:, :, 0]).square()
    torch.testing.assert_close(every.detach(), expected, rtol=1e-12, atol=0)
    weights = torch.full((4 * students, 4), 0.25, dtype=torch.float64)
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    outcome = run.apply(Decision({name: weights}, {name: 2.0}, 1.0))
    np.testing.assert_allclose(outcome.loss, 2 * expected.mean(1).view(students, -1).mean(1).numpy(), rtol=1e-12)
    assert any(not torch.equal(one, parameter) for one, parameter in zip(before, run.student.parameters, strict=True))


def test_the_loss_is_the_sum_of_the_types_at_their_strengths_and_weights(layered_data):
    run = run_of(
        layered_data,
        student="tiny-bert(width=8,layers=2,heads=2,dropout=0)",
        knowledge="response,layer,relation,attention",
        kd_weight=0.5,
    )
    run.observe()
    rng = np.random.default_rng(0)
    weights = {name: torch.from_numpy(rng.dirichlet(np.ones(3), 4)) for name in run.terms}
    strengths = {"response": 0.5, "layer": torch.linspace(0, 2, 4, dtype=torch.float64), "relation": 0.0, "attention": 7.0, "label": 0.25}
    found = run.per_example_loss(Decision(weights, strengths, 3.0)).detach()
    expected = 0.25 * run.per_teacher_loss("label", 3.0)[:, 0]
    for name in run.terms:
        expected = expected + strengths[name] * (weights[name] * run.per_teacher_loss(name, 3.0)).sum(1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)
    assert all(float(run.per_teacher_loss(name, 3.0).detach().min()) > 0 for name in run.terms), "each has something to say"


def test_what_the_setting_has_not_is_refused(digits_data):
    run = run_of(digits_data)
    with pytest.raises(InputError, match="unknown knowledge type 'contrast'; known: label, response"):
        run.per_teacher_loss("contrast", 2.0)


def test_labels_are_shown_to_types_where_they_are_part_of_the_setting_alone(digits_data):
    shown = []

    @dataclass(frozen=True)
    class Peeking(Gap):
        def loss(self, student, target):
            shown.append(student.labels)
            return super().loss(student, target)

    for strength in (1.0, 0.5):
        run = run_of(digits_data, kd_weight=strength)
        run.terms["response"] = Term("response", Peeking())
        run.per_teacher_loss("response", 2.0)
        run.per_teacher_loss("label", 2.0)
    assert [labels is None for labels in shown] == [True] * 4 + [False] * 4
