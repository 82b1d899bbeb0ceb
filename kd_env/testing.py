"""Checks for plug-ins: is this a policy, a task, a knowledge type? In: the class or function. Out: nothing, or an error with the mend."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from kd_env.benchmark.run_trial import teach
from kd_env.benchmark.trial import default_options
from kd_env.envs.settings import settings
from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.policies.context import make_context
from kd_env.policies.registry import PolicyClass, declared
from kd_env.tasks import Task
from kd_env.tasks.task import SPLITS
from kd_env.types import Decision, ModelOutput

UPDATES = 4
_EXAMPLES = 5


def check_policy(policy: Any, **options: Any) -> None:
    """Teach a small student twice with ``policy`` and see that it keeps to the protocol.

    Raises:
        InputError: it declares an access that does not exist, or env keywords that do not.
        AssertionError: its actions are not in the space, differ between equal seeds, or its student is not finished.
    """
    name = getattr(policy, "__name__", str(policy))
    found = declared(name, policy, options)
    students = []
    for _ in range(2):
        env = _environment(found)
        agent = found.build(env, 0)
        observation, _ = env.reset(seed=0)
        action = agent.act(observation)
        if not isinstance(action, Decision):  # ``step`` checks those
            action = np.asarray(action)
            assert env.action_space.contains(action.astype(env.action_space.dtype)), (
                f"{name}.act gave {action!r}, which is not in {env.action_space}"
            )
        teach(env, [found.build(env, 0)], [0])
        assert env.finished is not None, f"{name}.learn(env, {UPDATES}) did not teach {UPDATES} mini-batches"
        students.append(env.finished.student.network.state_dict())
    for key, value in students[0].items():
        assert value.equal(students[1][key]), f"{name}: equal seeds gave different students; draw from a generator made from `seed`"
    if callable(getattr(policy, "save", None)):
        _check_saved(name, policy, found, agent)


def check_task(load: Callable[[], Task]) -> None:
    """See that ``load`` gives the same sound task every time.

    Raises:
        InputError: its defaults are not settings.
        AssertionError: two calls differ, an input stands in two splits, or groups and their names do not fit.
    """
    task = load()
    assert task.fingerprint == load().fingerprint, f"task {task.name!r}: two calls gave different content; seed what is random"
    settings(task)
    assert task.development().test is None
    seen: dict[bytes, str] = {}
    for name in SPLITS:
        split = getattr(task, name)
        if split is None:
            continue
        for row in split.inputs:
            content = row.tobytes() if task.kind == "image" else str(row).encode()
            other = seen.setdefault(content, name)
            assert other == name, f"task {task.name!r}: an input of {name!r} stands in {other!r} too; keep equal inputs on one side"
        if split.groups is not None:
            known = len(task.group_names)
            least = -1 if task.unlabelled and name == "train" else 0
            assert split.groups.min() >= least, f"task {task.name!r}: groups of {name!r} are below 0"
            assert split.groups.max() < known, f"task {task.name!r}: groups of {name!r} exceed the {known} group_names"


def check_knowledge(knowledge: type[Knowledge] | Knowledge) -> None:
    """See that a knowledge type, or what its class gives by default, can teach one student, many at once, and under first-order credit.

    Raises:
        AssertionError: it is no ``Knowledge`` or other than it declares; its loss is not ``[B]``, finite, at least 0 and differentiable,
            also where the student equals the teacher; or it does not pass ``torch.func.vmap`` or forward-mode AD.
    """
    kind_of = knowledge if isinstance(knowledge, type) else type(knowledge)
    name = kind_of.__name__
    assert issubclass(kind_of, Knowledge), f"{name}: derive it from kd_env.knowledge.knowledge.Knowledge, which says what it must have"
    with _mend(f"{name}() fails; define `target` and `loss`, and give every option a default"):
        kind = knowledge() if isinstance(knowledge, type) else knowledge
    assert kind.needs in get_args(Part), f"{name}.needs={kind.needs!r} must be one of {', '.join(get_args(Part))}"
    assert kind.needs in ("layers", "features") or not kind.projects, f"{name}.projects maps layers or features, needs={kind.needs!r}"
    assert not kind.of_peers or (kind.rowwise and kind.needs == "logits"), f"{name}.of_peers compares logits, rowwise; declare both"
    students = [_said(kind, 7 if kind.projects else 5, seed) for seed in (0, 1)]
    teachers = [_said(kind, 7, seed, padding=3)._replace(labels=None) for seed in (2, 3)]
    with _mend(f"{name}.target fails; a teacher shows logits, features and the part that `needs` names"):
        targets = [kind.target(teacher) for teacher in teachers]
    assert all(len(target) == _EXAMPLES for target in targets), f"{name}.target must keep the examples as its first axis"
    for case, part in _cases(kind, students[0], teachers[0]).items():
        _check_value_and_gradient(f"{name}.loss for {case}", kind, _showing(kind, students[0], part), targets[0])
    _check_modes(name, kind, students, targets)
    if kind.rowwise:
        _check_rowwise(name, kind, students, targets)


def _environment(policy: PolicyClass) -> Any:
    options = {**default_options(policy.environment), **policy.env_options}
    make: dict[str, Any] = {"vectorization_mode": "vector_entry_point", "task": "digits", "updates": UPDATES, "autoreset_mode": "same_step"}
    slots = 8 if options.get("granularity", "instance") == "instance" else 1
    return gym.make_vec(policy.environment, num_envs=slots, **make, **options).unwrapped


def _check_saved(name: str, policy: Any, found: PolicyClass, agent: Any) -> None:
    env = _environment(found)
    observation, _ = env.reset(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "policy")
        agent.save(path)
        source = env if found.owns_loop else make_context(env, name, found.access)
        again = policy.load(path, source)
    assert np.shape(again.act(observation)) == np.shape(agent.act(observation)), f"{name}.load gave a policy of another shape"


def _said(kind: Knowledge, width: int, seed: int, padding: int = 0) -> ModelOutput:
    """Outputs in float64 with the parts that ``kind`` may read and no others; the last example has two tokens of padding more."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(_EXAMPLES, *shape, generator=generator, dtype=torch.float64)

    real = torch.ones(_EXAMPLES, 1, 6 + padding, dtype=torch.float64)
    real[:, :, 6:] = real[-1, :, 4:] = 0.0
    scores = draw(2, 6 + padding, 6 + padding).exp() * real[:, :, None]
    return ModelOutput(
        logits=draw(4),
        features=draw(width),
        layers=draw(3, width) if kind.needs == "layers" else None,
        attention=scores / scores.sum(3, keepdim=True) * real[..., None] if kind.needs == "attention" else None,
        labels=torch.arange(_EXAMPLES) % 4 if kind.reads_labels else None,
        temperature=2.0,
    )


def _cases(kind: Knowledge, student: ModelOutput, teacher: ModelOutput) -> dict[str, Tensor]:
    """What the student may show of the part that ``kind`` needs."""
    part = getattr(student, kind.needs)
    cases = {"any student": part, "a student that equals the teacher": getattr(teacher, kind.needs)}
    if kind.needs == "attention":
        sharp = (part == part.amax(3, keepdim=True)) & (part > 0.0)
        return {**cases, "a student that attends to one token": sharp.to(part.dtype)}
    return {**cases, f"a student whose {kind.needs} are zero": 0.0 * part, f"a student whose {kind.needs} are large": 1e4 * part}


def _showing(kind: Knowledge, student: ModelOutput, part: Tensor) -> ModelOutput:
    changed: dict[str, Any] = {kind.needs: part}
    return student._replace(**changed)


def _check_value_and_gradient(what: str, kind: Knowledge, student: ModelOutput, target: Tensor) -> None:
    part = getattr(student, kind.needs).clone().requires_grad_()
    given = "`needs` names the part it is given, labels come with `reads_labels`, equal widths with `projects`; padding differs"
    with _mend(f"{what} fails; {given}"):
        losses = kind.loss(_showing(kind, student, part), target)
    assert losses.shape == (_EXAMPLES,), f"{what} has shape {tuple(losses.shape)}; it must be one value an example, [B]"
    assert losses.dtype == part.dtype, f"{what} is {losses.dtype} where the student is {part.dtype}; keep the student's"
    assert losses.isfinite().all(), f"{what} is not finite: {losses.tolist()}"
    assert (losses >= -1e-9 * losses.abs().max().clamp_min(1.0)).all(), f"{what} is below 0: {losses.tolist()}"
    assert losses.requires_grad, f"{what} has no gradient; compute it from student.{kind.needs}, as `needs` says, without detaching it"
    (gradient,) = torch.autograd.grad(losses.sum(), part)
    assert gradient.isfinite().all(), f"{what} has a gradient that is not finite; guard roots, norms and logarithms at zero"


def _check_modes(name: str, kind: Knowledge, students: list[ModelOutput], targets: list[Tensor]) -> None:
    """Tensor temperatures, many students at once, and derivatives forwards."""
    parts = [getattr(student, kind.needs) for student in students]
    labels = torch.arange(_EXAMPLES) % 4

    def loss(part: Tensor, target: Tensor, labels: Tensor = labels, temperature: float | Tensor = 2.0) -> Tensor:
        given = students[0]._replace(labels=labels if kind.reads_labels else None, temperature=temperature)
        return kind.loss(_showing(kind, given, part), target)

    expected = torch.stack([loss(*each) for each in zip(parts, targets, strict=True)])
    how = "student.temperature may be a tensor [B, 1]; squeeze its last axis where it multiplies the loss"
    with _mend(f"{name}.loss fails at a temperature for each example; {how}"):
        each = loss(parts[0], targets[0], temperature=torch.full((_EXAMPLES, 1), 2.0, dtype=torch.float64))
    assert each.shape == expected[0].shape, f"{name}.loss has shape {tuple(each.shape)} at a temperature for each example; {how}"
    assert torch.allclose(each, expected[0]), f"{name}.loss differs where every example's temperature is the same tensor value; {how}"
    how = "avoid .item(), `if` on values, boolean indexing and in-place operations"
    with _mend(f"{name}.loss fails under torch.func.vmap; {how}"):
        together = torch.func.vmap(loss)(torch.stack(parts), torch.stack(targets), torch.stack([labels, labels]))
    assert torch.allclose(together, expected), f"{name}.loss under torch.func.vmap differs from a loop; {how}"
    alone: dict[str, Any] = {part: value[:1] for part, value in students[0]._asdict().items() if isinstance(value, Tensor)}
    with _mend(f"{name}.loss fails for a mini-batch of one"):
        assert kind.loss(students[0]._replace(**alone), targets[0][:1]).isfinite().all(), "it is not finite; divide by no less than 1"
    part = parts[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(part, targets[0]).sum(), part)
    assert gradient.any(), f"{name}.loss has a gradient of zero everywhere; nothing could be learned"
    with _mend(f"{name}.loss fails in forward-mode AD; use operations that torch.autograd.forward_ad knows"), _forwards():
        along = loss(forward_ad.make_dual(parts[0], parts[1]), targets[0])  # type: ignore[no-untyped-call]
        slope = forward_ad.unpack_dual(along).tangent  # type: ignore[no-untyped-call]
        assert slope is not None, "no tangent comes out"
        assert torch.allclose(slope.sum(), (gradient * parts[1]).sum()), "its derivative differs from the backward one"


def _check_rowwise(name: str, kind: Knowledge, students: list[ModelOutput], targets: list[Tensor]) -> None:
    changed = [torch.cat([getattr(one, kind.needs)[-1:], getattr(students[0], kind.needs)[1:]]) for one in students]
    before, after = (kind.loss(_showing(kind, students[0], part), targets[0])[1:] for part in changed)
    assert before.equal(after), f"{name} declares rowwise, but an example's loss changes with another example's output; leave rowwise out"
    wide: dict[str, Any] = {part: value[:, None] for part, value in students[0]._asdict().items() if isinstance(value, Tensor)}
    how = "with rowwise, a student [B, 1, ...] must broadcast against targets [B, K, ...]: count axes from the last"
    with _mend(f"{name}.loss fails for all teachers at once; {how}"):
        together = kind.loss(students[0]._replace(**wide), torch.stack(targets, 1))
    expected = torch.stack([kind.loss(students[0], target) for target in targets], 1)
    assert together.shape == expected.shape, f"{name}.loss for all teachers at once has shape {tuple(together.shape)}; {how}"
    assert torch.allclose(together, expected), f"{name}.loss for all teachers at once differs from one at a time; {how}"


@contextmanager
def _forwards() -> Iterator[None]:
    """Dual numbers; on first use torch compiles their rules through a function it deprecates itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            yield


@contextmanager
def _mend(sentence: str) -> Iterator[None]:
    """Whatever a plug-in raises, and what is wrong with what it gave, as one error that starts with ``sentence``."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{sentence}: {error}") from error
