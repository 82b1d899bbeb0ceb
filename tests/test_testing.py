"""The checks for plug-ins accept what is sound and name what is not."""

import dataclasses

import numpy as np
import pytest
import torch

from agents.gradient_credit import GradientCredit
from agents.reinforce import Reinforce
from baselines.router import Router
from baselines.single import Single
from kd_env import tasks
from kd_env.errors import InputError
from kd_env.knowledge import KNOWLEDGE
from kd_env.knowledge.attention import Attention
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.hint import Hint
from kd_env.knowledge.knowledge import Knowledge
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.similarity import Similarity
from kd_env.testing import check_knowledge, check_policy, check_task


class Constant:
    env_options = {"action": "one"}

    def __init__(self, env, seed=0, choice=0):
        self.num_envs, self.choice = env.num_envs, choice

    def act(self, observation):
        return np.full(self.num_envs, self.choice)


@pytest.mark.parametrize("policy", [Constant, GradientCredit, Reinforce, Router, Single])
def test_sound_policies_pass(policy):
    check_policy(policy)


def test_an_action_outside_the_space_is_named():
    with pytest.raises(AssertionError, match=r"Constant\.act gave .*not in"):
        check_policy(Constant, choice=7)


def test_an_unseeded_policy_is_found():
    class Unseeded(Constant):
        def act(self, observation):
            return np.random.default_rng().integers(4, size=self.num_envs)

    with pytest.raises(AssertionError, match="equal seeds gave different students"):
        check_policy(Unseeded)


def test_an_unknown_access_is_refused():
    class Sees(Constant):
        access = "everything"

    with pytest.raises(InputError, match="access='everything'"):
        check_policy(Sees)


@pytest.mark.parametrize("name", ["digits", "domains(train=64,reward=32,validation=32,test=32)"])
def test_built_in_tasks_pass(name):
    check_task(lambda: tasks.load(name))


def test_an_input_in_two_splits_is_found():
    task = tasks.load("digits")
    leaky = dataclasses.replace(task, validation=task.train.take(np.arange(10)))
    with pytest.raises(AssertionError, match="an input of 'validation' stands in 'train' too"):
        check_task(lambda: leaky)


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

    rowwise = True

    def target(self, teacher):
        return teacher.logits

    def loss(self, student, target):
        return (student.logits - target).square().mean(-1)


def knowledge_like(loss, **declared):
    return type("Broken", (Squares,), {"loss": lambda self, student, target: loss(student, target), "rowwise": False, **declared})


def test_a_plug_in_passes():
    check_knowledge(Squares)
    check_knowledge(Squares())


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
    "single precision": (lambda s, t: (s.logits - t).square().mean(1).float(), {}, "keep the student's"),
    "detached": (lambda s, t: (s.logits - t).square().mean(1).detach(), {}, "has no gradient"),
    "another part": (
        lambda s, t: (s.logits - t).square().mean(1),
        {"needs": "features"},
        r"compute it from student\.features, as `needs` says",
    ),
    "no such part": (lambda s, t: s.logits.mean(1), {"needs": "hidden"}, "needs='hidden' must be one of logits, features"),
    "a part it was not promised": (lambda s, t: s.layers.square().mean((1, 2)), {}, "`needs` names the part it is given"),
    "labels it was not promised": (lambda s, t: s.logits.gather(1, s.labels[:, None])[:, 0] ** 2, {}, "labels come with `reads_labels`"),
    "maps of logits": (lambda s, t: s.logits.square().mean(1), {"projects": True}, "projects maps layers or features, needs='logits'"),
    "equal widths": (
        lambda s, t: (s.features - t).square().mean(1),
        {"needs": "features", "target": lambda self, teacher: teacher.features},
        "equal widths with `projects`",
    ),
    "a mean as its target": (
        lambda s, t: s.logits.square().mean(1),
        {"target": lambda self, teacher: teacher.logits.mean(0)},
        "first axis",
    ),
    "mixed examples": (compared_with_the_batch, {"rowwise": True}, "declares rowwise, but an example's loss changes with another"),
    "axes counted from the first": (lambda s, t: (s.logits - t).square().mean(1), {"rowwise": True}, "all teachers at once"),
    "temperature for each example": (
        lambda s, t: s.temperature**2 * (s.logits - t).square().mean(1),
        {},
        "squeeze its last axis where it multiplies the loss",
    ),
    "a mini-batch of one": (over_the_others, {}, "divide by no less than 1"),
    "control flow on values": (picked, {}, r"fails under torch\.func\.vmap; avoid \.item\(\)"),
    "no forward rule": (lambda s, t: Backwards.apply(s.logits - t), {}, "fails in forward-mode AD"),
    "flat": (lambda s, t: (s.logits * 0 - t).square().mean(1), {}, "gradient of zero everywhere"),
}


@pytest.mark.parametrize(("loss", "declared", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_knowledge_types_are_told_what_to_mend(loss, declared, message):
    with pytest.raises(AssertionError, match=message):
        check_knowledge(knowledge_like(loss, **declared))


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
