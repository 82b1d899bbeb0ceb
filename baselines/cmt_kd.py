"""``cmt_kd``: one target of all teachers' intermediate features, after CMT-KD (Pham et al. 2023, WACV, arXiv 2210.16103).

In CMT-KD, the features of the teachers at a layer are combined by importances that are learned; the combined feature guides the student.
Students and teachers have low bit-widths (``student="resnet8(bits=4)"``). Only the abstract and the introduction of the paper could be
read. So these formulas are a reading of ours:

    pi_l = softmax_k(theta_l)                       importances of layer l, [K]; theta starts at 0 and learns with the student
    F_l  = sum_k pi_lk F_lk                         the combined feature of layer l
    L    = s_label CE + s_response 1/K sum_k tau^2 KL(p_k || q) + s_feature d(student, F)

``d`` is the distance of the knowledge type that the setting names besides ``response``: ``hint`` (default), ``layer``, ``map_hint``,
``attention_transfer`` and others of features, layers or maps. For a type with a learned map ``r_k`` per teacher, the student's side is
``sum_k pi_lk r_k(F_S)``. Each layer, and each stage of ``attention_transfer(stages=all)``, has its own importances.

Deviation: the paper's teachers learn together with the student, and read the combined feature of one layer as the input of the next one.
Here teachers are fixed, and their features are those of the bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter

import torch
from torch import Tensor, nn

from baselines.rule import WEIGHTS, BaseRule, auxiliary_output, uniform
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import Knowledge
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.layer_knowledge import evenly_spaced
from kd_env.knowledge.map_knowledge import MapKnowledge, paired
from kd_env.knowledge.terms import Term
from kd_env.models.stages import ALL, LAST, request
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.types import Decision, ModelOutput, TeacherShapes

MAX_LAYERS = 64
"""Number of layers that have importances of their own."""
COMBINED = ("features", "layers", "maps")
"""Outputs of teachers that can be combined."""


class Importance(nn.Module):
    """The importance of each teacher at each layer."""

    def __init__(self, width: int, widths: Sequence[int], num_terms: int) -> None:
        """Start from equal importances of the K teachers; no random number is drawn."""
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(MAX_LAYERS, len(widths)))  # [layers, K]

    def forward(self, output: ModelOutput) -> Tensor:
        """Return the importances, ``[B, layers, K]``, equal for all examples."""
        return self.theta.softmax(1).expand(len(output.logits), -1, -1)


class CMTKD(BaseRule):
    """Reads the student's gradient, by which the importances learn."""

    access = "gradient"
    paper = "Pham et al. 2023, arXiv 2210.16103"
    env_options = {**WEIGHTS, "knowledge": "response,hint", "auxiliary_module": "baselines.cmt_kd:Importance"}
    search_space: SearchSpace = {"knowledge": Choice(("response,hint", "response,hint(strength=10)", "response,hint(strength=100)"))}

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Find the knowledge type whose target is combined.

        Raises:
            InputError: the setting does not name exactly one type of features, layers or maps, or that type has ``grouped`` or
                ``skip_epochs``, or the teachers' outputs have different shapes.
        """
        super().__init__(context, seed)
        names = [name for name, term in context.terms.items() if term.knowledge.compares in COMBINED and not term.knowledge.uses_peers]
        if len(names) != 1:
            raise InputError(
                f"policy cmt_kd combines the features of one knowledge type, the setting has {', '.join(names) or 'none'}; "
                "set knowledge=response,hint"
            )
        self.name = names[0]
        self.term: Term = context.terms[self.name]
        if isinstance(self.term.knowledge, Layer) and self.term.knowledge.grouped:
            raise InputError("policy cmt_kd combines all teachers at each layer; leave grouped=true out")
        if self.term.skip_epochs:
            raise InputError(f"policy cmt_kd combines features from the first epoch on; leave skip_epochs={self.term.skip_epochs} out")
        known = known_shapes(self.term.knowledge, context.teacher_shapes)  # checked before other policies of the command run
        for name, shapes in known.items():
            _require_equal_shapes(shapes, name)

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the decision: equal weights for the responses, and the distance to the combined feature as the penalty."""
        weights = {name: uniform(batch).to(batch.teacher_logits) for name in self.context.terms if name != self.name}
        importances = auxiliary_output(batch, self)  # [rows, layers, K]
        decision = self.context.decision({**weights, self.name: importances[:, 0].detach()})  # weights for the record
        size = self.context.settings.distillation.batch_size
        losses = []
        for start in range(0, batch.num_rows, size):  # each student's mini-batch alone: some types compare its examples
            rows = slice(start, start + size)
            student, *teachers = (output.map(itemgetter(rows)) for output in (batch.student_output, *self._teachers(batch)))
            losses.append(combined_loss(self.term.knowledge, student, teachers, importances[rows]))
        loss = torch.cat(losses)
        strengths = {**decision.strengths, self.name: 0.0}  # no teacher alone is a target of this type
        return replace(decision, strengths=strengths, penalty=decision.strengths[self.name] * loss)

    def _teachers(self, batch: PolicyBatch) -> list[ModelOutput]:
        return [
            ModelOutput(
                batch.teacher_logits[:, k],
                batch.teacher_features[k],
                batch.teacher_layers[k] if batch.teacher_layers else None,
                maps=batch.teacher_maps[k] if batch.teacher_maps else None,
                stages=batch.teacher_stages[k] if batch.teacher_stages else {},
            )
            for k in range(batch.num_teachers)
        ]


def known_shapes(kind: Knowledge, shapes: TeacherShapes) -> dict[str, list[list[int]]]:
    """Return the shapes of the K teachers for each output that ``kind`` compares; ``all`` stages depend on the student and are left out."""
    if kind.compares == "features":
        return {"features": [[width] for width in shapes.widths]}
    if kind.compares == "layers":
        return {"layers": [list(shape) for shape in shapes.layers]}
    return {
        request(stage): [list(shape) for shape in (shapes.maps if stage == LAST else (each[stage] for each in shapes.stages))]
        for stage in (kind.compared if isinstance(kind, MapKnowledge) else ())
        if stage != ALL
    }


def combined_loss(kind: Knowledge, student: ModelOutput, teachers: Sequence[ModelOutput], importances: Tensor) -> Tensor:
    """Return the distance of the student to the combined features, ``[B]``; those of several stages are added.

    Args:
        kind: knowledge type.
        student: outputs of the student.
        teachers: outputs of the teachers.
        importances: importances, ``[B, layers, K]``.

    Raises:
        InputError: the teachers' features have different shapes, or there are too many layers.
    """
    mapped = [student] if kind.projector is None else [kind.projector.for_teacher(student, k) for k in range(len(teachers))]
    if isinstance(kind, MapKnowledge):
        names = [request(stage) for stage in paired(kind.compared, student.stages, teachers[0].stages)]
    else:
        names = [kind.compares]
    losses = []
    for number, name in enumerate(names):
        own, theirs = ([_values(output, name) for output in outputs] for outputs in (mapped, teachers))
        _require_equal_shapes([list(value.shape[1:]) for value in theirs], name)
        weights = importances[:, number]  # [B, K]
        if name == "layers":
            depth = min(own[0].shape[1], theirs[0].shape[1])
            own, theirs = ([evenly_spaced(layers, depth) for layers in side] for side in (own, theirs))
            weights = importances[:, :depth]  # [B, L, K]
        sides = (own[0] if kind.projector is None else combined(own, weights), combined(theirs, weights))
        outputs = [student._replace(**{kind.compares: side}) for side in sides]  # type: ignore[arg-type]
        losses.append(kind.loss(outputs[0], kind.target(outputs[1])))
    return torch.stack(losses).sum(0)


def _values(output: ModelOutput, name: str) -> Tensor:
    values: Tensor | None = output.named(name)
    assert values is not None, f"the output has {name}"
    return values


def _require_equal_shapes(shapes: Sequence[list[int]], name: str) -> None:
    if any(shape != shapes[0] for shape in shapes):
        raise InputError(
            f"policy cmt_kd combines the {name} of teachers, which have the shapes {', '.join(map(str, shapes))}; use teachers of one "
            "architecture"
        )
    if name == "layers" and shapes[0][0] > MAX_LAYERS:
        raise InputError(f"policy cmt_kd has importances for {MAX_LAYERS} layers, the teachers have {shapes[0][0]}; use others")


def combined(values: Sequence[Tensor], importances: Tensor) -> Tensor:
    """Return ``sum_k importances_k values_k``, K x ``[B, ...]`` and ``[B, K]`` or ``[B, L, K]`` -> ``[B, ...]``."""
    stacked = torch.stack(list(values), -1)  # [B, ..., K]
    axes = [1] * (stacked.ndim - importances.ndim)
    return (stacked * importances.view(*importances.shape[:-1], *axes, importances.shape[-1])).sum(-1)
