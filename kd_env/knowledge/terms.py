"""Terms: the knowledge types of a setting, and the loss of each for every example and teacher.

In: ``"response,layer(strength=50)"``, and what student and teachers say. Out: losses ``[rows, K]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from kd_env import spec
from kd_env.errors import InputError
from kd_env.knowledge import KNOWLEDGE, Knowledge
from kd_env.knowledge.knowledge import EXTRA
from kd_env.knowledge.peers import losses_of_peers
from kd_env.plugins import resolve
from kd_env.types import Batch, ModelOutput

RENAMED = {"feature": "layer"}
"""Former names of knowledge types: they are refused with an error that gives the new name."""


@dataclass(frozen=True)
class Term:
    """One knowledge type as a term of the loss.

    Attributes:
        name: how decisions call it.
        strength: the setting's own factor, on top of what a decision says.
    """

    name: str
    kind: Knowledge
    strength: float = 1.0


def parse_terms(text: str) -> tuple[Term, ...]:
    """Read the ``knowledge`` setting; each type is a spec, built-in or ``module:Class``, and takes ``strength`` besides its own options.

    Raises:
        InputError: an unknown type or option, a type named twice, or a strength that is no positive number.
    """
    terms: dict[str, Term] = {}
    for part in spec.split(text):
        name, options = spec.parse(part)
        strength = options.pop("strength", 1.0)
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0.0 < strength < float("inf"):
            raise InputError(f"knowledge={text!r}: strength={strength!r} of {name} must be a number above 0; leave out what shall be off")
        if name == "label":
            raise InputError(f"knowledge={text!r}: the hard label needs no naming, it is there with kd_weight below 1")
        if name in RENAMED:
            raise InputError(f"knowledge={text!r}: {name!r} is now called {RENAMED[name]!r}; use that name")
        if name not in KNOWLEDGE and ":" not in name:
            raise spec.unknown("knowledge type", name, KNOWLEDGE)
        kind = spec.call_plugin(f"knowledge {part!r}", KNOWLEDGE[name] if name in KNOWLEDGE else resolve(name, "knowledge type"), options)
        if not isinstance(kind, Knowledge):
            raise InputError(f"knowledge {part!r}: a {type(kind).__name__} is not a kd_env.knowledge.Knowledge; subclass it")
        for key, value in options.items():
            if isinstance(getattr(type(kind), key, None), bool) and not isinstance(value, bool):
                raise InputError(f"knowledge {part!r}: {key}={value!r}, expected true or false")
        if name in terms:
            raise InputError(f"knowledge={text!r}: {name} is named twice; name it once")
        terms[name] = Term(name, kind, float(strength))
    if not terms:
        raise InputError("knowledge='': name at least one type, as knowledge=response")
    return tuple(terms.values())


def extra_parts(terms: Sequence[Term]) -> frozenset[str]:
    """What the bank must keep, and the student show, for ``terms``."""
    return frozenset(term.kind.needs for term in terms if term.kind.needs in EXTRA)


def losses(kind: Knowledge, student: ModelOutput, features: Batch, num_students: int) -> Tensor:
    """Loss of every example of ``features`` against every teacher, ``[rows, K]``; ``student`` is what the students say of them.

    Of a type that asks peers, it is the same for all teachers.
    """
    if kind.of_peers:
        return losses_of_peers(kind, student, features, num_students)[:, None].expand(-1, features.teacher_logits.shape[1])
    if kind.rowwise and kind.needs == "logits":
        every = ModelOutput(features.teacher_logits, features.teacher_logits)
        temperature = student.temperature[:, None] if isinstance(student.temperature, Tensor) else student.temperature
        labels = None if student.labels is None else student.labels[:, None]
        said = ModelOutput(student.logits[:, None], student.features[:, None], labels=labels, temperature=temperature)
        return kind.loss(said, kind.target(every))
    teachers = range(features.teacher_logits.shape[1])
    return torch.stack([_against(kind, *_facing(kind, student, features, k), num_students) for k in teachers], 1)


def _facing(kind: Knowledge, student: ModelOutput, features: Batch, k: int) -> tuple[ModelOutput, ModelOutput]:
    """Student and teacher k as they are compared: with equally many layers, of the teacher's width where the type projects."""
    teacher = ModelOutput(
        features.teacher_logits[:, k],
        features.teacher_features[k],
        attention=features.teacher_attention[k] if kind.needs == "attention" else None,
    )
    if kind.needs == "features" and kind.projects:
        return student._replace(features=(student.bent_hints if kind.bends else student.hints)[k]), teacher
    if kind.needs != "layers":
        return student, teacher
    assert student.layers is not None
    theirs = features.teacher_layers[k]
    if kind.grouped:
        every = student.projected[k] if kind.projects else student.layers
        own = end_of_group(k, len(features.teacher_layers), every.shape[1])
        return student._replace(layers=every[:, own : own + 1]), teacher._replace(layers=theirs[:, -1:])
    count = min(student.layers.shape[1], theirs.shape[1])
    ours = student.projected[k] if kind.projects else spread(student.layers, count)
    return student._replace(layers=ours), teacher._replace(layers=spread(theirs, count))


def _against(kind: Knowledge, student: ModelOutput, teacher: ModelOutput, num_students: int) -> Tensor:
    if kind.rowwise or num_students == 1:
        return kind.loss(student, kind.target(teacher))
    parts = {name: part for name, part in student._asdict().items() if isinstance(part, Tensor)}
    said = {name: part for name, part in teacher._asdict().items() if isinstance(part, Tensor)}
    constant = {} if isinstance(student.temperature, Tensor) else {"temperature": student.temperature}

    def alone(own: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
        return kind.loss(ModelOutput(**own, **constant), kind.target(ModelOutput(**other)))  # type: ignore[arg-type]

    grouped = ({name: part.reshape(num_students, -1, *part.shape[1:]) for name, part in side.items()} for side in (parts, said))
    return vmap(alone)(*grouped).flatten(0, 1)


def end_of_group(k: int, groups: int, depth: int) -> int:
    """Which of ``depth`` layers is the last of group ``k``; of the last group it is the last."""
    return -(-(k + 1) * depth // groups) - 1


def spread(layers: Tensor, count: int) -> Tensor:
    """``count`` of the layers ``[B, L, D]``, evenly spaced: first goes with first, last with last; one alone is the last."""
    depth = layers.shape[1]
    if count == depth:
        return layers
    chosen = torch.linspace(0, depth - 1, count).round().long() if count > 1 else torch.tensor([depth - 1])
    return layers[:, chosen.to(layers.device)]
