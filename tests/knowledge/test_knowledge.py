"""The loss of all students against all teachers, and what plug-ins are given."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from comparing import draw

from kd_env.distillation import Distillation
from kd_env.distillation.settings import distillation_settings
from kd_env.errors import InputError
from kd_env.knowledge import KNOWLEDGE, Knowledge, LossContext
from kd_env.knowledge.layer_knowledge import LayerKnowledge
from kd_env.knowledge.terms import Term, parse_terms
from kd_env.types import Batch, Decision, ModelOutput


@dataclass(frozen=True)
class Gap(Knowledge):
    """A plug-in: the squared distance of the first logit, times ``scale``."""

    scale: float = 1.0

    def target(self, teacher):
        return teacher.logits[:, 0]

    def loss(self, student, target):
        return self.scale * (student.logits[:, 0] - target).square()


class Depth(LayerKnowledge):
    """A plug-in whose loss is the number of layers it compares, or -1 where student and teacher have different numbers."""

    def target(self, teacher):
        return teacher.layers

    def loss(self, student, target):
        count = student.layers.shape[1] if student.layers.shape[1] == target.shape[1] else -1
        return 0.0 * student.layers.sum((1, 2)) + count


class Unaligned(Depth):
    """The same without alignment."""

    def align(self, student, teacher, k, num_teachers):
        return student, teacher


class Confidence(Knowledge):
    """A plug-in that reads its context: the student's probability of the label, at the temperature of the decision."""

    reads_labels: ClassVar = True

    def target(self, teacher):
        return teacher.logits

    def loss(self, student, target):
        raise AssertionError("not without a context")

    def loss_in_context(self, student, target, context):
        return (student.logits / context.temperature).softmax(1).gather(1, context.labels[:, None])[:, 0]


OF_TEACHERS = [name for name, kind in KNOWLEDGE.items() if not kind.uses_peers]
TEXTS = [
    *OF_TEACHERS,
    "layer(normalized=true)",
    "hint(normalized=true)",
    "similarity(kind=angle)",
    "similarity(kind=preserving)",
    "attention(values=false)",
    "map_hint(convolutions=3)",
]


def outputs(students=2, batch=3, teachers=((4, 5), (2, 6)), depth=3, width=4):
    """Outputs of ``students`` and of teachers of other depths and widths."""
    rows = students * batch
    student = ModelOutput(
        draw(rows, 4),
        draw(rows, width, seed=1),
        draw(rows, depth, width, seed=2),
        draw(rows, 2, 3, 3, seed=3).softmax(3),
        {
            "layers": tuple(draw(rows, min(depth, depth_k), width_k, seed=4) for depth_k, width_k in teachers),
            "linear": tuple(draw(rows, width_k, seed=20 + k) for k, (_, width_k) in enumerate(teachers)),
            "mlp": tuple(draw(rows, width_k, seed=30 + k) for k, (_, width_k) in enumerate(teachers)),
            **{
                name: tuple(draw(rows, width_k, 2, 2, seed=seed + k) for k, (_, width_k) in enumerate(teachers))
                for seed, name in ((40, "maps"), (50, "maps.deep"), (60, "maps.nonlinear"))
            },
        },
        maps=draw(rows, width, 2, 2, seed=15),
    )
    batch_of_all = Batch(
        update=np.zeros(students),
        progress=np.zeros(students),
        example_ids=np.arange(rows),
        labels=torch.arange(rows) % 4,
        teacher_logits=draw(rows, len(teachers), 4, seed=5),
        teacher_features=tuple(draw(rows, width_k, seed=6 + k) for k, (_, width_k) in enumerate(teachers)),
        student=student,
        teacher_layers=tuple(draw(rows, depth_k, width_k, seed=9 + k) for k, (depth_k, width_k) in enumerate(teachers)),
        teacher_attention=tuple(draw(rows, 2, 3, 3, seed=12 + k).softmax(3) for k in range(len(teachers))),
        teacher_maps=tuple(draw(rows, width_k, 2, 2, seed=16 + k) for k, (_, width_k) in enumerate(teachers)),
    )
    return student, batch_of_all, LossContext(2.0, torch.arange(rows) % 4)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("students", [1, 2, 4])
def test_each_student_is_compared_with_each_teacher_on_its_own_rows(text, students):
    (term,), (student, batch, context) = parse_terms(text), outputs(students)
    kind = term.knowledge
    losses = kind.losses(student, batch, context)
    assert losses.shape == (students * 3, 2)
    for s in range(students):
        rows = slice(3 * s, 3 * s + 3)
        for k in range(2):
            # layers that are compared; of 4 the third of three is 1.5, which rounds to 2
            of_student, of_teacher = [([0, 1, 2], [0, 2, 3]), ([0, 2], [0, 1])][k]
            mapped = {"features": student.features[rows], "layers": student.layers[rows][:, of_student], "maps": student.maps[rows]}
            if kind.projector is not None:
                mapped[kind.compares] = student.projections[kind.projector.name][k][rows]
            alone = ModelOutput(student.logits[rows], mapped["features"], mapped["layers"], student.attention[rows], maps=mapped["maps"])
            teacher = ModelOutput(
                batch.teacher_logits[rows, k],
                batch.teacher_features[k][rows],
                batch.teacher_layers[k][rows][:, of_teacher],
                batch.teacher_attention[k][rows],
                maps=batch.teacher_maps[k][rows],
            )
            loss = kind.loss_in_context(alone, kind.target(teacher), LossContext(2.0, context.labels[rows]))
            torch.testing.assert_close(losses[rows, k], loss, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("text", TEXTS)
def test_another_student_s_rows_do_not_matter(text):
    (term,), (student, batch, context) = parse_terms(text), outputs(2)

    def spoil(values):
        return torch.cat([values[:3], values[3:] * float("nan")])

    before, after = (term.knowledge.losses(output, batch, context)[:3] for output in (student, student.map(spoil)))
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("depth", "teachers"), [(3, ((5, 4), (3, 4), (2, 4), (1, 4)))])
def test_both_come_with_the_layers_of_the_shallower(depth, teachers):
    student, batch, context = outputs(1, 3, teachers, depth)
    assert Depth().losses(student, batch, context)[0].tolist() == [3.0, 3.0, 2.0, 1.0]
    assert Unaligned().losses(student, batch, context)[0].tolist() == [-1.0, 3.0, -1.0, -1.0]


@pytest.mark.parametrize("text", ["response", "tckd", "nckd"])
@pytest.mark.parametrize("students", [1, 2])
def test_a_temperature_may_differ_by_row(text, students):
    (term,), (student, batch, context) = parse_terms(text), outputs(students)
    temperatures = torch.linspace(0.5, 4.0, 3 * students, dtype=torch.float64)
    losses = term.knowledge.losses(student, batch, LossContext(temperatures[:, None], context.labels))
    for row, temperature in enumerate(temperatures.tolist()):
        alone = term.knowledge.losses(student, batch, LossContext(temperature, context.labels))
        torch.testing.assert_close(losses[row], alone[row], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("students", [1, 2])
def test_a_plug_in_is_given_its_own_rows_of_the_context(students):
    student, batch, context = outputs(students)
    temperatures = torch.linspace(0.5, 4.0, 3 * students, dtype=torch.float64)[:, None]
    losses = Confidence().losses(student, batch, LossContext(temperatures, context.labels))
    expected = (student.logits / temperatures).softmax(1)[torch.arange(3 * students), context.labels]
    torch.testing.assert_close(losses, expected[:, None].expand(-1, 2))


def run_of(data, **keywords):
    keywords = {"student": "mlp(width=8)", "batch_size": 4, "updates": 5, "precision": "float64", "optimizer": "sgd(lr=0.1)", **keywords}
    return Distillation(data, distillation_settings(data.task, **keywords), 0)


@pytest.mark.parametrize("students", [1, 3])
def test_a_plug_in_teaches(digits_data, students):
    name = f"{__name__}:Gap"
    run = run_of(digits_data, knowledge=f"response,{name}(strength=3)", num_students=students)
    batch = run.observe()
    assert list(run.loss.terms) == ["response", name]
    assert run.loss.terms[name].strength == 3.0
    losses = run.per_teacher_loss(name, 2.0)
    expected = (batch.student.logits[:, None, 0] - batch.teacher_logits[:, :, 0]).square()
    torch.testing.assert_close(losses.detach(), expected, rtol=1e-12, atol=0)
    weights = torch.full((4 * students, 4), 0.25, dtype=torch.float64)
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    outcome = run.apply(Decision({name: weights}, {name: 2.0}, 1.0))
    np.testing.assert_allclose(outcome.loss, 2 * expected.mean(1).view(students, -1).mean(1).numpy(), rtol=1e-12)
    assert any(not torch.equal(old, parameter) for old, parameter in zip(before, run.student.parameters, strict=True))


@pytest.mark.long
def test_the_loss_is_the_sum_of_the_types_at_their_strengths_and_weights(layered_data):
    run = run_of(
        layered_data,
        student="tiny-bert(width=8,layers=2,heads=2,dropout=0)",
        knowledge="response,layer,relation,attention",
        kd_weight=0.5,
    )
    run.observe()
    rng = np.random.default_rng(0)
    weights = {name: torch.from_numpy(rng.dirichlet(np.ones(3), 4)) for name in run.loss.terms}
    strengths = {"response": 0.5, "layer": torch.linspace(0, 2, 4, dtype=torch.float64), "relation": 0.0, "attention": 7.0, "label": 0.25}
    loss = run.per_example_loss(Decision(weights, strengths, 3.0)).detach()
    expected = 0.25 * run.per_teacher_loss("label", 3.0)[:, 0]
    for name in run.loss.terms:
        expected = expected + strengths[name] * (weights[name] * run.per_teacher_loss(name, 3.0)).sum(1)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    assert all(float(run.per_teacher_loss(name, 3.0).detach().min()) > 0 for name in run.loss.terms), "each has something to say"


def test_what_the_setting_has_not_is_refused(digits_data):
    run = run_of(digits_data)
    with pytest.raises(InputError, match="unknown knowledge type 'contrast'; known: label, response"):
        run.per_teacher_loss("contrast", 2.0)


def test_labels_are_in_the_context_where_they_are_part_of_the_setting_alone(digits_data):
    shown = []

    @dataclass(frozen=True)
    class Peeking(Gap):
        def loss_in_context(self, student, target, context):
            shown.append(context.labels)
            return super().loss_in_context(student, target, context)

    for strength in (1.0, 0.5):
        run = run_of(digits_data, kd_weight=strength)
        run.loss.terms["response"] = Term("response", Peeking())
        run.per_teacher_loss("response", 2.0)
        run.per_teacher_loss("label", 2.0)
    assert [labels is None for labels in shown] == [True] * 4 + [False] * 4
