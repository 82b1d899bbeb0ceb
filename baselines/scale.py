"""Two scales for published weights: ``matched`` to the setting's strengths, or as ``released`` by their authors.

Released codes confound weights with strength: at uniform weights CA-MKD's distillation term sums to 1/K, EBKD's to (K - 1)/K, an average to
1. ``matched`` keeps the weights on the simplex, so that policies differ in their weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor

from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyContext
from kd_env.types import Decision

Scale = Literal["matched", "released"]
SCALES = get_args(Scale)


def check_scale(context: PolicyContext, policy: str, scale: str) -> None:
    """Check the option ``scale`` of ``policy``.

    Raises:
        InputError: there is no such scale, or the setting has no labels, which every released loss has.
    """
    spec.one_of(policy, *SCALES, scale=scale)
    if scale == "released" and not context.uses_hard_labels:
        raise InputError(
            f"policy {policy}(scale=released) has the hard label in its loss, which kd_weight=1 leaves out; set kd_weight=0.5, or leave "
            "scale out"
        )


def scaled(context: PolicyContext, weights: dict[str, Tensor], scale: str, factor: float | Mapping[str, float | Tensor]) -> Decision:
    """Return the decision with some weights of the teachers, and strengths by ``scale``.

    Args:
        context: the context of the policy.
        weights: weights of the teachers ``[rows, K]``, by knowledge type.
        scale: ``matched`` for the strengths of the setting; ``released`` for strength 1 of the label, and for each other type its own
            strength times ``factor``.
        factor: a factor of all types, or factors by type; 1 for types that it does not name.
    """
    decision = context.decision(weights)
    if scale == "matched":
        return decision
    terms = context.terms
    factors = factor if isinstance(factor, Mapping) else dict.fromkeys(weights, factor)
    weighted_types = [name for name in weights if not terms[name].knowledge.uses_peers]
    strengths: dict[str, float | Tensor] = {name: terms[name].strength * factors.get(name, 1.0) for name in weighted_types}
    if "label" in decision.strengths:
        strengths["label"] = 1.0
    return replace(decision, strengths={**decision.strengths, **strengths})
