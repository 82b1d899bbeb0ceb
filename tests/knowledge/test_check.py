"""The check for knowledge types accepts what is sound and says how to fix what is not."""

import dataclasses
import inspect

import pytest
import torch

from kd_env.knowledge import KNOWLEDGE, Knowledge
from kd_env.knowledge.attention import Attention
from kd_env.knowledge.check import check_knowledge
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.hint import Hint, LinearProjector
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.rowwise import RowwiseKnowledge
from kd_env.knowledge.similarity import Similarity


@pytest.mark.parametrize("knowledge", KNOWLEDGE.values(), ids=KNOWLEDGE)
def test_built_in_knowledge_types_pass(knowledge):
    check_knowledge(knowledge)


WITH_OPTIONS = [
    Layer(normalized=True),
    Hint(normalized=True),
    Similarity("angle"),
    Similarity("preserving"),
    Attention(values=False),
    TargetClass("teacher"),
    NonTargetClass("teacher"),
]


@pytest.mark.parametrize("knowledge", WITH_OPTIONS)
def test_built_in_knowledge_types_with_options_pass(knowledge):
    check_knowledge(knowledge)


class Squares(Knowledge):
    """Mean squared difference of logits: a sound plug-in without options."""

    def target(self, teacher):
        return teacher.logits

    def loss(self, student, target):
        return (student.logits - target).square().mean(-1)


class RowwiseSquares(RowwiseKnowledge):
    """The same for all teachers at once."""

    target, loss = Squares.target, Squares.loss


class Tempered(Squares):
    """A sound plug-in that reads its context."""

    reads_labels = True

    def loss_in_context(self, student, target, context):
        q = (student.logits / context.temperature).softmax(1)
        return context.temperature_squared * (1.0 - q.gather(1, context.labels[:, None])[:, 0])


def broken(loss, base=Knowledge, target=Squares.target, **declared):
    """A knowledge type with a ``loss`` of student and target, or of student, target and context."""
    methods = {"target": target, "loss": lambda self, student, target: loss(student, target)}
    if len(inspect.signature(loss).parameters) == 3:
        methods["loss_in_context"] = lambda self, student, target, context: loss(student, target, context)
    return type("Broken", (base,), {**methods, **declared})


@pytest.mark.parametrize("kind", [Squares, RowwiseSquares, Tempered])
def test_a_plug_in_passes(kind):
    check_knowledge(kind)
    check_knowledge(kind())


def roots(student, target):
    return (student.logits - target).square().sum(-1).sqrt()


def compared_with_the_batch(student, target):
    error = student.logits - target
    return (error - error.mean(0)).square().mean(-1)


def over_the_others(student, target):
    return (student.logits - target).square().sum(1) / (len(target) - 1)


def picked(student, target):
    error = (student.logits - target).square()
    return error.sum(1) if float(error.detach().sum()) > 0 else error.sum(1) * 0


class Backwards(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(logits):
        return logits.square().mean(-1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (logits,) = ctx.saved_tensors
        return gradient[..., None] * 2 * logits / logits.shape[-1]


BROKEN = {
    "a mean over the batch": (lambda s, t: (s.logits - t).square().mean(), {}, r"Broken\.loss for any student has shape \(\)"),
    "negative": (lambda s, t: -(s.logits - t).square().mean(1), {}, "is below 0"),
    "the gradient of a root": (roots, {}, "equals the teacher has a gradient that is not finite"),
    "a logarithm": (lambda s, t: s.logits.log().square().sum(1), {}, "any student is not finite"),
    "single precision": (lambda s, t: (s.logits - t).square().mean(1).float(), {}, "keep the student's dtype"),
    "detached": (lambda s, t: (s.logits - t).square().mean(1).detach(), {}, "has no gradient"),
    "another output": (
        lambda s, t: (s.logits - t).square().mean(1),
        {"compares": "features"},
        r"compute it from student\.features, which `compares` names",
    ),
    "no such output": (lambda s, t: s.logits.mean(1), {"compares": "hidden"}, "compares='hidden' must be one of logits, features"),
    "an output it was not promised": (lambda s, t: s.layers.square().mean((1, 2)), {}, "`compares` names the output it gets"),
    "labels it was not promised": (lambda s, t, c: s.logits.gather(1, c.labels[:, None])[:, 0] ** 2, {}, "labels come with `reads_labels`"),
    "maps of logits": (
        lambda s, t: s.logits.square().mean(1),
        {"projector": LinearProjector},
        "projector maps features, and compares='logits'",
    ),
    "equal widths": (
        lambda s, t: (s.features - t).square().mean(1),
        {"compares": "features", "target": lambda self, teacher: teacher.features},
        "equal widths with a `projector`",
    ),
    "a mean as its target": (
        lambda s, t: s.logits.square().mean(1),
        {"target": lambda self, teacher: teacher.logits.mean(0)},
        "first axis",
    ),
    "mixed examples": (compared_with_the_batch, {"base": RowwiseKnowledge}, "is rowwise, but an example's loss changes with another"),
    "axes counted from the first": (lambda s, t: (s.logits - t).square().mean(1), {"base": RowwiseKnowledge}, "all teachers at once"),
    "temperature for each example": (
        lambda s, t, c: c.temperature**2 * (s.logits - t).square().mean(1),
        {},
        "squeeze its last axis where it multiplies the loss",
    ),
    "a mini-batch of one": (over_the_others, {}, "divide by no less than 1"),
    "control flow on values": (picked, {}, r"fails under torch\.func\.vmap; avoid \.item\(\)"),
    "no forward rule": (lambda s, t: Backwards.apply(s.logits - t), {}, "fails in forward-mode AD"),
    "rowwise features": (lambda s, t: s.logits.mean(1), {"base": RowwiseKnowledge, "compares": "features"}, "rowwise types compare logits"),
    "peers without a base": (lambda s, t: s.logits.mean(1), {"uses_peers": True}, "derive a type that uses peers from PeerKnowledge"),
    "flat": (lambda s, t: (s.logits * 0 - t).square().mean(1), {}, "gradient of zero everywhere"),
}


@pytest.mark.parametrize(("loss", "declared", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_knowledge_types_are_told_how_to_fix_them(loss, declared, message):
    with pytest.raises(AssertionError, match=message):
        check_knowledge(broken(loss, **declared))


def test_what_is_no_knowledge_type_is_refused():
    class Plain:
        target, loss = Squares.target, Squares.loss

    for plain in (Plain, Plain(), Squares.loss):
        with pytest.raises(AssertionError, match=r"derive it from kd_env\.knowledge\.knowledge\.Knowledge"):
            check_knowledge(plain)


def test_a_knowledge_type_needs_a_loss_and_defaults():
    class Half(Knowledge):
        target = Squares.target

    @dataclasses.dataclass(frozen=True)
    class Optional(Squares):
        margin: float

    for unfinished in (Half, Optional):
        with pytest.raises(AssertionError, match="define `target` and `loss`, and give every option a default"):
            check_knowledge(unfinished)
    check_knowledge(Optional(margin=1.0))
