"""Whole decisions in place of actions: weights of their own for each knowledge type, strengths off the simplex, gradients.

In: a :class:`~kd_env.types.Decision` of ``S * B`` rows that a policy made. Out: the same, checked against the setting, and what traces
keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_env.envs.actions import DecodedAction
from kd_env.errors import InputError
from kd_env.types import Decision


class RecordedDecision(NamedTuple):
    """A decision in numbers, row by row; types are in the setting's order, ``label`` last where labels are part of it."""

    weights: np.ndarray  # [rows, M, K]
    strengths: np.ndarray  # [rows, M or M + 1], float64
    temperature: np.ndarray  # [rows], float64


def make_decision(selection: Any, weights: Mapping[str, Tensor], factors: Mapping[str, float | Tensor] | None = None) -> Decision:
    """The decision with teachers ``weights`` by knowledge type, strengths as the setting has them times ``factors``.

    Raises:
        InputError: the setting asks teachers for a type that the policy does not weigh.
    """
    options, run = selection.settings, selection.distillation
    if missing := [name for name, term in run.terms.items() if name not in weights and not term.kind.asks_peers]:
        weighed = ", ".join(weights) or "other types"
        raise InputError(f"knowledge={options.knowledge!r}: the policy weighs {weighed}, not {missing[0]}; leave that out")
    strengths: dict[str, float | Tensor] = {name: options.kd_weight * term.strength for name, term in run.terms.items()}
    if run.reads_labels:
        strengths["label"] = 1.0 - options.kd_weight
    for name, factor in (factors or {}).items():
        strengths[name] = strengths[name] * factor
    return Decision(weights, strengths, options.temperature)


def shown(selection: Any, decision: Decision) -> DecodedAction:
    """What a decision looks like among actions: the weights of its first knowledge type.

    Raises:
        InputError: it names types that the setting has not, buys labels that are no part of it, or has another shape; or credit is paid.
    """
    run, options = selection.distillation, selection.settings
    rows, count = options.num_students * options.batch_size, selection.num_teachers
    known = {*run.terms, *(["label"] if run.reads_labels else [])}
    for name in (*decision.weights, *decision.strengths):
        if name not in known:
            raise InputError(f"decision: {name!r} is no knowledge type of this setting, which has {', '.join(sorted(known))}")
    for name, one in decision.weights.items():
        if tuple(one.shape) != (rows, count):
            raise InputError(f"decision: weights of {name!r} have shape {tuple(one.shape)}, expected ({rows}, {count})")
    columns = {f"strength of {name!r}": one for name, one in decision.strengths.items()}
    for what, column in {**columns, "temperature": decision.temperature, "penalty": decision.penalty}.items():
        if isinstance(column, Tensor) and tuple(column.shape) not in ([(rows,)] if what == "penalty" else [(rows,), ()]):
            raise InputError(f"decision: {what} has shape {tuple(column.shape)}, expected ({rows},)")
    asked = {name for name, term in run.terms.items() if not term.kind.asks_peers}
    if missing := [name for name in decision.strengths if name in asked and name not in decision.weights]:
        raise InputError(f"decision: {missing[0]!r} has a strength and no weights; give both")
    if options.credit != "shared":
        raise InputError(f"credit={options.credit!r} is paid for actions; a whole decision is taught with credit=shared")
    if options.updates_per_phase > 1:
        raise InputError(f"updates_per_phase={options.updates_per_phase}: a decision is about one mini-batch; leave it out")
    first = next((decision.weights[name] for name in run.terms if name in decision.weights), None)
    return DecodedAction(np.zeros((rows, count), dtype=np.float32) if first is None else first.detach().float().cpu().numpy())


def numbers(decision: Decision, names: Sequence[str], reads_labels: bool, rows: int, num_teachers: int) -> RecordedDecision:
    """What a trace keeps of a decision about ``rows`` instances; ``names`` are the setting's types."""
    zero = torch.zeros(rows, num_teachers)
    weights = torch.stack([decision.weights.get(name, zero).detach().float().cpu() for name in names], 1)
    every = [*names, "label"] if reads_labels else list(names)
    strengths = np.stack([_column(decision.strengths.get(name, 0.0), rows) for name in every], 1)
    return RecordedDecision(weights.numpy(), strengths, _column(decision.temperature, rows))


def from_numbers(kept: RecordedDecision, names: Sequence[str], reads_labels: bool, like: Tensor) -> Decision:
    """The decision that a trace keeps, in the type and on the device of ``like``; what is alike in all rows is one number again."""

    def column(values: np.ndarray) -> float | Tensor:
        return float(values[0]) if (values == values[0]).all() else torch.from_numpy(values).to(like)

    weights = {name: torch.from_numpy(kept.weights[:, m].copy()).to(like) for m, name in enumerate(names)}
    every = [*names, "label"] if reads_labels else list(names)
    strengths = {name: column(kept.strengths[:, m]) for m, name in enumerate(every)}
    return Decision(weights, strengths, column(kept.temperature))


def together(parts: Sequence[Decision], rows: int) -> Decision:
    """Decisions about ``rows`` instances each, as one about all of them, in order."""

    def joined(values: Sequence[float | Tensor]) -> float | Tensor:
        if all(not isinstance(value, Tensor) and value == values[0] for value in values):
            return values[0]
        like = next((value for value in values if isinstance(value, Tensor)), next(iter(parts[0].weights.values())))
        return torch.cat([value.expand(rows) if isinstance(value, Tensor) else like.new_full((rows,), value) for value in values])

    first = parts[0]
    penalties = [part.penalty for part in parts if part.penalty is not None]
    assert len(penalties) in (0, len(parts)), "a policy's decisions have a penalty or have none"
    return Decision(
        {name: torch.cat([part.weights[name] for part in parts]) for name in first.weights},
        {name: joined([part.strengths[name] for part in parts]) for name in first.strengths},
        joined([part.temperature for part in parts]),
        torch.cat(penalties) if penalties else None,
    )


def _column(value: float | Tensor, rows: int) -> np.ndarray:
    values = value.detach().double().cpu().numpy() if isinstance(value, Tensor) else np.float64(value)
    return np.broadcast_to(values, rows).copy()
