"""Make, check, record and restore whole decisions.

In: a decoded action, or a :class:`~kd_env.types.Decision` of ``S * B`` rows from a policy. Out: a decision that fits the setting, and its
numbers for traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import Distillation, reward_ce
from kd_env.envs.actions import ActionKind, TeacherAction
from kd_env.envs.settings import Settings
from kd_env.errors import InputError
from kd_env.spec import unknown
from kd_env.types import Decision, DecodedAction


class RecordedDecision(NamedTuple):
    """The numbers of a decision. M knowledge types are in the setting's order, the strengths in that of :func:`strength_names`."""

    weights: np.ndarray  # [rows, M, K]
    strengths: np.ndarray  # [rows, number of strengths], float64
    temperature: np.ndarray  # [rows], float64


def strength_names(run: Distillation) -> list[str]:
    """Return the names of the strengths of a setting: its knowledge types, ``label`` if used, and ``reward_ce`` if used."""
    label = ["label"] if run.settings.uses_hard_labels else []
    return [*run.loss.terms, *label, *([reward_ce.NAME] if run.settings.reward_ce > 0.0 else [])]


def of_action(run: Distillation, kind: ActionKind, decoded: DecodedAction) -> Decision:
    """Turn a decoded action into a decision. A slot that decides about a mini-batch decides about all of its instances."""
    settings = run.settings
    instances = run.num_students * settings.batch_size

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(per_instance(values, instances)).to(run.student.device, run.student.dtype)

    weights = tensor(decoded.weights)
    kd_weight: float | Tensor = 1.0
    if not kind.replaces_kd_weight:
        kd_weight = settings.kd_weight if decoded.kd_weight is None else tensor(decoded.kd_weight)
    strengths: dict[str, float | Tensor] = {name: term.strength * kd_weight for name, term in run.loss.terms.items()}
    if run.settings.uses_hard_labels:
        strengths["label"] = 1.0 if kind.replaces_kd_weight else 1.0 - kd_weight
    if decoded.gates is not None:
        strengths = {name: tensor(decoded.gates[:, m]) * strengths[name] for m, name in enumerate(kind.layout.knowledge)}
    temperature: float | Tensor = settings.temperature
    if decoded.temperature_scale is not None:
        temperature = settings.temperature * tensor(decoded.temperature_scale)
    return Decision(dict.fromkeys(run.loss.terms, weights), strengths, temperature)


def per_instance(values: np.ndarray, instances: int) -> np.ndarray:
    """Repeat values of slots for their instances, ``[slots, ...]`` -> ``[instances, ...]``."""
    return values if len(values) == instances else np.repeat(values, instances // len(values), axis=0)


def decision_of_weights(run: Distillation, weights: Mapping[str, Tensor], factors: Mapping[str, float | Tensor] | None = None) -> Decision:
    """Return the decision with these teacher weights by knowledge type, and the setting's strengths times ``factors``.

    ``reward_ce`` may have a factor too.

    Raises:
        InputError: the setting has a knowledge type that needs weights, and ``weights`` has none for it; or a factor is of a strength that
            the setting does not have.
    """
    settings = run.settings
    if missing := [name for name, term in run.loss.terms.items() if name not in weights and not term.knowledge.uses_peers]:
        weighted = ", ".join(weights) or "no type"
        raise InputError(
            f"knowledge={settings.knowledge!r}: the policy gives weights for {weighted}, not for {missing[0]}; leave {missing[0]} out of it"
        )
    strengths: dict[str, float | Tensor] = {name: settings.kd_weight * term.strength for name, term in run.loss.terms.items()}
    if run.settings.uses_hard_labels:
        strengths["label"] = 1.0 - settings.kd_weight
    setting_strengths = {**strengths, reward_ce.NAME: settings.reward_ce} if settings.reward_ce > 0.0 else strengths
    for name, factor in (factors or {}).items():
        if name not in setting_strengths:
            raise unknown("strength", name, setting_strengths)
        strengths[name] = setting_strengths[name] * factor
    return Decision(weights, strengths, settings.temperature)


def require_fits(run: Distillation, decision: Decision) -> None:
    """Check that a decision fits a run.

    Raises:
        InputError: the decision has types or labels that the setting does not use, or wrong shapes. Values are not read; a student
            that they spoil is marked as diverged.
    """
    rows, num_teachers = run.num_students * run.settings.batch_size, run.num_teachers
    for name in decision.weights:
        if name not in run.loss.terms:
            raise InputError(f"decision: {name!r} is not a knowledge type of this setting, which has {', '.join(run.loss.terms)}")
    known_strengths = strength_names(run)
    for name in decision.strengths:
        if name not in known_strengths:
            raise InputError(f"decision: {name!r} is not a strength of this setting, which has {', '.join(known_strengths)}")
    for name, weights in decision.weights.items():
        if not isinstance(weights, Tensor) or not weights.is_floating_point():
            raise InputError(f"decision: weights of {name!r} are a {type(weights).__name__}; expected a tensor of floating-point numbers")
        if tuple(weights.shape) != (rows, num_teachers):
            raise InputError(f"decision: weights of {name!r} have shape {tuple(weights.shape)}, expected ({rows}, {num_teachers})")
    columns = {f"strength of {name!r}": strength for name, strength in decision.strengths.items()}
    for part, column in {**columns, "temperature": decision.temperature, "penalty": decision.penalty}.items():
        if not isinstance(column, (int, float, Tensor) if part != "penalty" else (Tensor, type(None))):
            raise InputError(
                f"decision: {part} is a {type(column).__name__}; expected {'' if part == 'penalty' else 'a number or '}a tensor"
            )
        if isinstance(column, Tensor) and tuple(column.shape) not in ([(rows,), ()] if part.startswith("strength") else [(rows,)]):
            raise InputError(f"decision: {part} has shape {tuple(column.shape)}, expected ({rows},)")
    uses_teachers = {name for name, term in run.loss.terms.items() if not term.knowledge.uses_peers}
    if missing := [name for name in decision.strengths if name in uses_teachers and name not in decision.weights]:
        raise InputError(f"decision: {missing[0]!r} has a strength but no weights; give both")


def require_accepted(settings: Settings, kind: ActionKind, decision: Decision) -> None:
    """Check that the environment takes whole decisions, and pays this one if it pays credit.

    Raises:
        InputError: it teaches phases, or pays credit for something else than one weighting of the teachers.
    """
    if settings.reward.credit != "shared":
        requirement = f"credit={settings.reward.credit!r} is paid for one weighting of the teachers"
        if not isinstance(kind, TeacherAction):
            raise InputError(f"{requirement}, and action={kind.name!r} decides more; return actions, or use credit=shared")
        weightings = list(decision.weights.values())
        if not weightings:
            raise InputError(f"{requirement}, and the decision has no weights; give some, or use credit=shared")
        if not all(weights is weightings[0] or torch.equal(weights, weightings[0]) for weights in weightings):
            raise InputError(
                f"{requirement}, and the decision has several; give all knowledge types the same weights, or use credit=shared"
            )
    if (phase := settings.interface.updates_per_phase) > 1:
        raise InputError(f"updates_per_phase={phase}: a whole decision is about one mini-batch; leave updates_per_phase out")


def as_action(run: Distillation, decision: Decision) -> DecodedAction:
    """Return a decision in the form of a decoded action: the weights of its first knowledge type."""
    first = next((decision.weights[name] for name in run.loss.terms if name in decision.weights), None)
    if first is None:
        return DecodedAction(np.zeros((run.num_students * run.settings.batch_size, run.num_teachers), dtype=np.float32))
    return DecodedAction(first.detach().float().cpu().numpy())


def to_numbers(run: Distillation, decision: Decision) -> RecordedDecision:
    """Return the numbers of a decision about the ``S * B`` instances of a run."""
    rows = run.num_students * run.settings.batch_size
    zero, defaults = torch.zeros(rows, run.num_teachers), {reward_ce.NAME: run.settings.reward_ce}
    weights = torch.stack([decision.weights.get(name, zero).detach().float().cpu() for name in run.loss.terms], 1)
    strengths = [_column(decision.strengths.get(name, defaults.get(name, 0.0)), rows) for name in strength_names(run)]
    return RecordedDecision(weights.numpy(), np.stack(strengths, 1), _column(decision.temperature, rows))


def from_numbers(run: Distillation, recorded: RecordedDecision, like: Tensor) -> Decision:
    """Return the decision with these numbers; tensors have the type and device of ``like``. A column of equal values becomes one number."""

    def column(values: np.ndarray) -> float | Tensor:
        return float(values[0]) if (values == values[0]).all() else torch.from_numpy(values).to(like)

    weights = {name: torch.from_numpy(recorded.weights[:, m].copy()).to(like) for m, name in enumerate(run.loss.terms)}
    strengths = {name: column(recorded.strengths[:, n]) for n, name in enumerate(strength_names(run))}
    return Decision(weights, strengths, column(recorded.temperature))


def concatenate(decisions: Sequence[Decision], rows: int) -> Decision:
    """Return several decisions, each about ``rows`` instances, as one decision about all instances in order."""
    first = decisions[0]

    def joined(values: Sequence[float | Tensor]) -> float | Tensor:
        if all(not isinstance(value, Tensor) and value == values[0] for value in values):
            return values[0]
        tensors = (value for value in (*values, *first.weights.values()) if isinstance(value, Tensor))
        like = next(tensors, torch.empty(0))  # its type and device
        return torch.cat([value.expand(rows) if isinstance(value, Tensor) else like.new_full((rows,), value) for value in values])

    penalties = [decision.penalty for decision in decisions if decision.penalty is not None]
    if len(penalties) not in (0, len(decisions)):
        raise InputError("population: some decisions have a penalty and some have none; give all of them a penalty, or none")
    if any(each.strengths.keys() != first.strengths.keys() or each.weights.keys() != first.weights.keys() for each in decisions):
        raise InputError("population: the decisions of the policies name different strengths or weights; name the same in all of them")
    return Decision(
        {name: torch.cat([decision.weights[name] for decision in decisions]) for name in first.weights},
        {name: joined([decision.strengths[name] for decision in decisions]) for name in first.strengths},
        joined([decision.temperature for decision in decisions]),
        torch.cat(penalties) if penalties else None,
    )


def _column(value: float | Tensor, rows: int) -> np.ndarray:
    values: Any = value.detach().double().cpu().numpy() if isinstance(value, Tensor) else np.float64(value)
    return np.broadcast_to(values, rows).copy()
