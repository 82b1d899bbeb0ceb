"""Find the features that a policy weighs hints by: of ``hint`` vectors, of ``map_hint`` maps. In: outputs. Out: features per teacher.

The papers' features are the last feature maps. ``hint`` compares the means of these over positions, which the classifiers read.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge.map_hint import MapHint
from kd_env.models.stages import LAST, request
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.types import Batch, ModelOutput

HINTS = ("hint", "map_hint")
"""Knowledge types whose terms have feature weights."""


def hint_of(context: PolicyContext) -> str | None:
    """Return the hint of the setting, ``hint`` or ``map_hint``; ``None`` if it has none.

    Raises:
        InputError: the setting has both.
    """
    hints = [name for name in HINTS if name in context.terms]
    if len(hints) > 1:
        knowledge = context.settings.distillation.knowledge
        raise InputError(f"knowledge={knowledge!r}: policy {context.name} has one set of feature weights; leave out hint or map_hint")
    return hints[0] if hints else None


def stage_of(context: PolicyContext, name: str) -> str:
    """Return the stage whose maps the term ``name`` compares; the features of ``hint`` are of the last one."""
    kind = context.terms[name].knowledge
    return kind.stage if isinstance(kind, MapHint) else LAST


def mapped_features(context: PolicyContext, name: str, student: ModelOutput) -> list[Tensor]:
    """Return the student's features mapped to each teacher's width, K x ``[B, D_k]``: of maps, the means over positions."""
    projector = context.terms[name].knowledge.projector
    assert projector is not None
    return [values if values.ndim == 2 else values.mean((2, 3)) for values in student.projections[projector.name]]


def pooled_features(context: PolicyContext, name: str, batch: Batch | PolicyBatch) -> Sequence[Tensor]:
    """Return the teachers' features ``[B, D_k]`` that :func:`mapped_features` correspond to."""
    stage = stage_of(context, name)
    return batch.teacher_features if stage == LAST else [stages[stage].mean((2, 3)) for stages in batch.teacher_stages]


def compared_features(
    context: PolicyContext, name: str, batch: Batch | PolicyBatch, student: ModelOutput
) -> tuple[Sequence[Tensor], Tensor]:
    """Return what the term ``name`` compares, not mapped: of the teachers, K x ``[B, D_k, ...]``, and of the student, ``[B, D, ...]``."""
    if name == "hint":
        return batch.teacher_features, student.features
    stage = stage_of(context, name)
    teachers = batch.teacher_maps if stage == LAST else [stages[stage] for stages in batch.teacher_stages]
    maps: Tensor = student.named(request(stage))
    return teachers, maps
