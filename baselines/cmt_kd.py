"""``cmt_kd``: one target of all teachers' intermediate features, after CMT-KD (Pham et al. 2023, WACV, arXiv 2210.16103).

In CMT-KD, the features of the teachers at a layer are combined by importances that are learned; the combined feature guides the student.
Students and teachers have low bit-widths (``student="resnet8(bits=4)"``). Only the abstract and the introduction of the paper could be
read. So these formulas are a reading of ours:

    pi_l = softmax_k(theta_l)                       importances of layer l, [K]; theta starts at 0 and learns with the student
    F_l  = sum_k pi_lk F_lk                         the combined feature of layer l
    L    = s_label CE + s_response 1/K sum_k tau^2 KL(p_k || q) + s_feature d(student, F)

``d`` is the distance of the knowledge type that the setting names besides ``response``: ``hint`` (default), ``layer``, ``map_hint``,
``attention_transfer`` and others of features, layers or maps. For a type with a learned map ``r_k`` per teacher, the student's side is
``sum_k pi_lk r_k(F_S)``. Features and maps have one importance per teacher, layers one per layer.

Deviation: the paper's teachers learn together with the student, and read the combined feature of one layer as the input of the next one.
Here teachers are fixed, and their features are those of the bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from baselines.rule import WEIGHTS, BaseRule, auxiliary_output, uniform
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import Knowledge
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.layer_knowledge import evenly_spaced
from kd_env.knowledge.terms import Term
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.types import Decision, ModelOutput

MOST_LAYERS = 64
"""Number of layers that have importances of their own."""
COMBINED = ("features", "layers", "maps")
"""Outputs of teachers that can be combined."""


class Importance(nn.Module):
    """The importance of each teacher at each layer."""

    def __init__(self, width: int, widths: Sequence[int], num_terms: int) -> None:
        """Start from equal importances of the K teachers; no random number is drawn."""
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(MOST_LAYERS, len(widths)))  # [layers, K]

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
                ``skip_epochs``.
        """
        super().__init__(context, seed)
        names = [name for name, term in context.terms.items() if term.kind.compares in COMBINED and not term.kind.asks_peers]
        if len(names) != 1:
            raise InputError(
                f"policy cmt_kd combines the features of one knowledge type, the setting has {', '.join(names) or 'none'}; "
                "set knowledge=response,hint"
            )
        self.name = names[0]
        self.term: Term = context.terms[self.name]
        if isinstance(self.term.kind, Layer) and self.term.kind.grouped:
            raise InputError("policy cmt_kd combines all teachers at each layer; leave grouped=true out")
        if self.term.skip_epochs:
            raise InputError(f"policy cmt_kd combines features from the first epoch on; leave skip_epochs={self.term.skip_epochs} out")

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the decision: equal weights for the responses, and the distance to the combined feature as the penalty."""
        weights = {name: uniform(batch).to(batch.teacher_logits) for name in self.context.terms if name not in ("label", self.name)}
        decision = self.context.decision({**weights, self.name: torch.zeros(batch.rows, batch.num_teachers).to(batch.teacher_logits)})
        loss = combined_loss(self.term.kind, batch.student_output, self._teacher_values(batch), auxiliary_output(batch, self))
        strengths = {**decision.strengths, self.name: 0.0}  # no teacher alone is a target of this type
        return replace(decision, strengths=strengths, penalty=decision.strengths[self.name] * loss)

    def _teacher_values(self, batch: PolicyBatch) -> tuple[Tensor, ...]:
        compares = self.term.kind.compares
        values = {"features": batch.teacher_features, "layers": batch.teacher_layers, "maps": batch.teacher_maps}[compares]
        shapes = [list(value.shape[1:]) for value in values]
        if any(shape != shapes[0] for shape in shapes):
            raise InputError(
                f"policy cmt_kd combines the {compares} of teachers, which have the shapes {', '.join(map(str, shapes))}; use teachers of "
                "one architecture"
            )
        if compares == "layers" and shapes[0][0] > MOST_LAYERS:
            raise InputError(
                f"policy cmt_kd has importances for {MOST_LAYERS} layers, the teachers have {shapes[0][0]}; use other teachers"
            )
        return values


def combined_loss(kind: Knowledge, student: ModelOutput, teachers: Sequence[Tensor], importances: Tensor) -> Tensor:
    """Return the distance of the student to the combined feature, ``[B]``.

    Args:
        kind: knowledge type.
        student: outputs of the student.
        teachers: features, layers or maps of the teachers, K x ``[B, ...]`` of equal shape.
        importances: importances, ``[B, layers, K]``.
    """
    compares = kind.compares
    own = student.projections[kind.projector.name] if kind.projector is not None else None  # K x [B, ...], one map per teacher
    values: Tensor = getattr(student, compares) if own is None else own[0]
    if compares == "layers":
        depth = min(values.shape[1], teachers[0].shape[1])
        teachers = [evenly_spaced(layers, depth) for layers in teachers]
        own = None if own is None else tuple(evenly_spaced(layers, depth) for layers in own)
        values, importances = evenly_spaced(values, depth), importances[:, :depth]
    else:
        importances = importances[:, 0]
    values = values if own is None else combined(own, importances)
    sides: list[dict[str, Any]] = [{compares: values}, {compares: combined(teachers, importances)}]
    return kind.loss(student._replace(**sides[0]), kind.target(student._replace(**sides[1])))


def combined(values: Sequence[Tensor], importances: Tensor) -> Tensor:
    """Return ``sum_k importances_k values_k``, K x ``[B, ...]`` and ``[B, K]`` or ``[B, L, K]`` -> ``[B, ...]``."""
    stacked = torch.stack(list(values), -1)  # [B, ..., K]
    axes = [1] * (stacked.ndim - importances.ndim)
    return (stacked * importances.view(*importances.shape[:-1], *axes, importances.shape[-1])).sum(-1)
