"""Check a knowledge type of your own. In: its class, or an instance. Out: nothing, or an error that says how to fix it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kd_env.knowledge.context import LossContext
from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.peers import PeerKnowledge, PeerResponse
from kd_env.knowledge.rowwise import RowwiseKnowledge, for_all_teachers
from kd_env.types import ModelOutput

_EXAMPLES = 5


def check_knowledge(knowledge: type[Knowledge] | Knowledge) -> None:
    """Check that a knowledge type works with one student, with many students at once, and with first-order credit.

    Args:
        knowledge: a knowledge type, or its class, which is then used with default options.

    Raises:
        AssertionError: the type is not a ``Knowledge`` or does not match its declarations; its loss is not ``[B]``, finite, at least 0 and
            differentiable, also if the student equals the teacher; or it fails under ``torch.func.vmap`` or forward-mode AD.
    """
    knowledge_class = knowledge if isinstance(knowledge, type) else type(knowledge)
    name = knowledge_class.__name__
    assert issubclass(knowledge_class, Knowledge), (
        f"{name}: derive it from kd_env.knowledge.knowledge.Knowledge, and define `target` and `loss`"
    )
    with _explain(f"{name}() fails; define `target` and `loss`, and give every option a default"):
        kind = knowledge() if isinstance(knowledge, type) else knowledge
    assert kind.compares in get_args(Output), f"{name}.compares={kind.compares!r} must be one of {', '.join(get_args(Output))}"
    _check_declarations(name, kind)
    students = [_output(kind, 7 if kind.projector else 5, seed) for seed in (0, 1)]
    teachers = [_output(kind, 7, seed, padding=3) for seed in (2, 3)]
    with _explain(f"{name}.target fails; a teacher has logits, features and the output that `compares` names"):
        targets = [kind.target(teacher) for teacher in teachers]
    assert all(len(target) == _EXAMPLES for target in targets), f"{name}.target must keep the examples as its first axis"
    for case, values in _cases(kind, students[0], teachers[0]).items():
        _check_value_and_gradient(f"{name}.loss for {case}", kind, _with(kind, students[0], values), targets[0])
    _check_modes(name, kind, students, targets)
    if isinstance(kind, RowwiseKnowledge | PeerResponse):
        _check_rowwise(name, kind, students, targets)


def _check_declarations(name: str, kind: Knowledge) -> None:
    if kind.projector is not None:
        projects = kind.projector.projects
        assert projects == kind.compares, f"{name}.projector maps {projects}, and compares={kind.compares!r}; declare the same output"
    if isinstance(kind, RowwiseKnowledge | PeerResponse):
        assert kind.compares == "logits", f"{name} compares={kind.compares!r}, but rowwise types compare logits; derive it from Knowledge"
    assert kind.uses_peers == isinstance(kind, PeerKnowledge), f"{name}.uses_peers: derive a type that uses peers from PeerKnowledge"


def _output(kind: Knowledge, width: int, seed: int, padding: int = 0) -> ModelOutput:
    """Return random outputs in float64, only those that ``kind`` may read. The last example has two more tokens of padding."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(_EXAMPLES, *shape, generator=generator, dtype=torch.float64)

    real = torch.ones(_EXAMPLES, 1, 6 + padding, dtype=torch.float64)
    real[:, :, 6:] = real[-1, :, 4:] = 0.0
    scores = draw(2, 6 + padding, 6 + padding).exp() * real[:, :, None]
    return ModelOutput(
        maps=draw(width, 3, 2) if kind.compares == "maps" else None,
        logits=draw(4),
        features=draw(width),
        layers=draw(3, width) if kind.compares == "layers" else None,
        attention=scores / scores.sum(3, keepdim=True) * real[..., None] if kind.compares == "attention" else None,
    )


def _context(kind: Knowledge, temperature: float | Tensor = 2.0, labels: Tensor | None = None) -> LossContext:
    """Return a context, with labels (by default 0, 1, 2, 3, 0) only if ``kind`` reads them."""
    labels = torch.arange(_EXAMPLES) % 4 if labels is None else labels
    return LossContext(temperature, labels if kind.reads_labels else None)


def _cases(kind: Knowledge, student: ModelOutput, teacher: ModelOutput) -> dict[str, Tensor]:
    """Return values of the student's compared output on which the loss must work, by description."""
    values = getattr(student, kind.compares)
    cases = {"any student": values, "a student that equals the teacher": getattr(teacher, kind.compares)}
    if kind.compares == "attention":
        sharp = (values == values.amax(3, keepdim=True)) & (values > 0.0)
        return {**cases, "a student that attends to one token": sharp.to(values.dtype)}
    zero, large = f"a student with {kind.compares} of zero", f"a student with large {kind.compares}"
    return {**cases, zero: 0.0 * values, large: 1e4 * values}


def _with(kind: Knowledge, student: ModelOutput, values: Tensor) -> ModelOutput:
    """Return the student with ``values`` as the output that ``kind`` compares."""
    changed: dict[str, Any] = {kind.compares: values}
    return student._replace(**changed)


def _check_value_and_gradient(case: str, kind: Knowledge, student: ModelOutput, target: Tensor) -> None:
    values = getattr(student, kind.compares).clone().requires_grad_()
    advice = "`compares` names the output it gets, labels come with `reads_labels`, equal widths with a `projector`; padding differs"
    with _explain(f"{case} fails; {advice}"):
        losses = kind.loss_in_context(_with(kind, student, values), target, _context(kind))
    assert losses.shape == (_EXAMPLES,), f"{case} has shape {tuple(losses.shape)}; it must be one value per example, [B]"
    assert losses.dtype == values.dtype, f"{case} is {losses.dtype}, but the student is {values.dtype}; keep the student's dtype"
    assert losses.isfinite().all(), f"{case} is not finite: {losses.tolist()}"
    assert (losses >= -1e-9 * losses.abs().max().clamp_min(1.0)).all(), f"{case} is below 0: {losses.tolist()}"
    assert losses.requires_grad, f"{case} has no gradient; compute it from student.{kind.compares}, which `compares` names, without detach"
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    assert gradient.isfinite().all(), f"{case} has a gradient that is not finite; guard roots, norms and logarithms at zero"


def _check_modes(name: str, kind: Knowledge, students: list[ModelOutput], targets: list[Tensor]) -> None:
    """Check tensor temperatures, many students at once, a mini-batch of one example, and forward-mode derivatives."""
    values = [getattr(student, kind.compares) for student in students]
    labels = torch.arange(_EXAMPLES) % 4

    def loss(values: Tensor, target: Tensor, labels: Tensor = labels, temperature: float | Tensor = 2.0) -> Tensor:
        return kind.loss_in_context(_with(kind, students[0], values), target, _context(kind, temperature, labels))

    expected = torch.stack([loss(*pair) for pair in zip(values, targets, strict=True)])
    advice = "context.temperature may be a tensor [B, 1]; squeeze its last axis where it multiplies the loss"
    with _explain(f"{name}.loss fails at a temperature for each example; {advice}"):
        tempered = loss(values[0], targets[0], temperature=torch.full((_EXAMPLES, 1), 2.0, dtype=torch.float64))
    assert tempered.shape == expected[0].shape, f"{name}.loss has shape {tuple(tempered.shape)} at a temperature for each example; {advice}"
    assert torch.allclose(tempered, expected[0]), f"{name}.loss differs between a number and a tensor of equal temperatures; {advice}"
    advice = "avoid .item(), `if` on values, boolean indexing and in-place operations"
    with _explain(f"{name}.loss fails under torch.func.vmap; {advice}"):
        batched = torch.func.vmap(loss)(torch.stack(values), torch.stack(targets), torch.stack([labels, labels]))
    assert torch.allclose(batched, expected), f"{name}.loss under torch.func.vmap differs from a loop; {advice}"
    single = students[0].map(lambda tensor: tensor[:1])
    with _explain(f"{name}.loss fails for a mini-batch of one"):
        losses = kind.loss_in_context(single, targets[0][:1], _context(kind, labels=labels[:1]))
        assert losses.isfinite().all(), "it is not finite; divide by no less than 1"
    point = values[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point, targets[0]).sum(), point)
    assert gradient.any(), f"{name}.loss has a gradient of zero everywhere; a student cannot learn from it"
    with _explain(f"{name}.loss fails in forward-mode AD; use operations that torch.autograd.forward_ad supports"), _dual_level():
        dual = loss(forward_ad.make_dual(values[0], values[1]), targets[0])  # type: ignore[no-untyped-call]
        tangent = forward_ad.unpack_dual(dual).tangent  # type: ignore[no-untyped-call]
        assert tangent is not None, "the loss has no tangent"
        assert torch.allclose(tangent.sum(), (gradient * values[1]).sum()), "its derivative differs from the backward one"


def _check_rowwise(name: str, kind: Knowledge, students: list[ModelOutput], targets: list[Tensor]) -> None:
    context = _context(kind)
    changed = [torch.cat([student.logits[-1:], students[0].logits[1:]]) for student in students]
    before, after = (kind.loss_in_context(_with(kind, students[0], logits), targets[0], context)[1:] for logits in changed)
    assert before.equal(after), f"{name} is rowwise, but an example's loss changes with another example's output; derive it from Knowledge"
    advice = "a rowwise student [B, 1, ...] must broadcast against targets [B, K, ...]: count axes from the last"
    with _explain(f"{name}.loss fails for all teachers at once; {advice}"):
        batched = kind.loss_in_context(for_all_teachers(students[0]), torch.stack(targets, 1), context.for_all_teachers())
    expected = torch.stack([kind.loss_in_context(students[0], target, context) for target in targets], 1)
    assert batched.shape == expected.shape, f"{name}.loss for all teachers at once has shape {tuple(batched.shape)}; {advice}"
    assert torch.allclose(batched, expected), f"{name}.loss for all teachers at once differs from one at a time; {advice}"


@contextmanager
def _dual_level() -> Iterator[None]:
    """Open a level of dual numbers. On first use torch calls a function that it deprecates itself; that warning is hidden here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            yield


@contextmanager
def _explain(sentence: str) -> Iterator[None]:
    """Turn an exception of a plug-in into an assertion error that starts with ``sentence``."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{sentence}: {error}") from error
