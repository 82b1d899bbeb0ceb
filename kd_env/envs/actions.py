"""Actions: what an agent says, and what it means for teachers and knowledge.

In: ``rows`` decisions. Out: a :class:`Choice`, numbers a row. Boxes are [-1, 1], which every library explores well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from kd_env.distillation.settings import Action
from kd_env.errors import InputError
from kd_env.spec import split, unknown

SHARPNESS = 10.0
"""``weights`` are softmax(10 a): over [-1, 1] a plain softmax could not favour one teacher of four beyond .71."""
MIN_TEACHER_WEIGHT = 0.01
"""A ``joint`` action asks the teachers whose weight is at least this, and no others."""
MAX_TEMPERATURE_SCALE = 4.0
"""A ``joint`` action divides or multiplies the temperature by up to this."""
FACTORS = ("teachers", "knowledge", "kd_weight", "temperature", "abstain")


class DecodedAction(NamedTuple):
    """What rows of an action mean; ``None`` is: as the setting has it."""

    weights: np.ndarray  # [rows, K], each row on the simplex, or all zero where nobody teaches
    gates: np.ndarray | None = None  # [rows, M], in [0, 1]
    kd_weight: np.ndarray | None = None  # [rows], in [0, 1]
    temperature_scale: np.ndarray | None = None  # [rows], what the temperature is multiplied by


@dataclass(frozen=True)
class ActionLayout:
    """What there is to decide about.

    Attributes:
        knowledge: names of the types that have a gate; ``label`` is the last where labels are part of the setting.
        factors: of a ``joint`` action, in the order of :data:`FACTORS`.
    """

    num_teachers: int
    knowledge: tuple[str, ...]
    factors: tuple[str, ...] = FACTORS

    @property
    def widths(self) -> dict[str, int]:
        """RecordedDecision of a ``joint`` action, a factor."""
        every = dict(zip(FACTORS, (self.num_teachers, len(self.knowledge), 1, 1, 1), strict=True))
        return {name: every[name] for name in self.factors}

    def size(self, kind: Action) -> int:
        """RecordedDecision of one decision."""
        if kind == "one":
            return 1
        if kind == "joint":
            return sum(self.widths.values())
        return len(self.knowledge) if kind in ("soft", "hard") else self.num_teachers


def parse_factors(text: str) -> tuple[str, ...]:
    """Read the ``factors`` setting.

    Raises:
        InputError: an unknown factor, or none.
    """
    named = [part.strip() for part in split(text)]
    for name in named:
        if name == "strength":
            raise InputError(f"factors={text!r}: 'strength' is now called 'kd_weight'; use that name")
        if name not in FACTORS:
            raise unknown("factor", name, FACTORS)
    if not named:
        raise InputError(f"factors={text!r}: name at least one of {', '.join(FACTORS)}")
    return tuple(name for name in FACTORS if name in named)


def space(kind: Action, layout: ActionLayout, rows: int = 1) -> spaces.Space[Any]:
    """The space of ``rows`` decisions taken in one step; of a single slot when ``rows`` is 1."""
    size = rows * layout.size(kind)
    if kind in ("subset", "hard"):
        return spaces.MultiBinary(size)
    if kind == "one":
        return spaces.Discrete(layout.num_teachers) if rows == 1 else spaces.MultiDiscrete([layout.num_teachers] * rows)
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


def decode(kind: Action, actions: np.ndarray, layout: ActionLayout, rows: int) -> DecodedAction:
    """Actions of ``rows`` decisions -> what they mean.

    Raises:
        InputError: the actions are not in the space.
    """
    given, size = np.asarray(actions), layout.size(kind)
    if given.size != rows * size:
        raise InputError(
            f"action {kind!r}: expected {rows * size} numbers for {rows} decisions over {_over(kind, layout)}, got shape {given.shape}"
        )
    if given.ndim > 1 and given.shape != (rows, size):
        raise InputError(f"action {kind!r}: expected shape ({rows}, {size}) or ({rows * size},), got {given.shape}")
    if not np.isfinite(given).all():
        raise InputError(f"action {kind!r}: holds NaN or infinite numbers")
    table = given.reshape(rows, size)
    if kind in ("subset", "hard") and not np.isin(table, (0.0, 1.0)).all():
        raise InputError(f"action {kind!r}: expected zeros and ones")
    if kind in ("weights", "soft", "joint") and (np.abs(table) > 1.0).any():
        raise InputError(f"action {kind!r}: expected numbers in [-1, 1]")
    return _DECODE[kind](table if kind == "one" else table.astype(np.float32), layout)


def to_weights(kind: Action, actions: np.ndarray, num_teachers: int, rows: int) -> np.ndarray:
    """The teacher weights ``[rows, K]`` that ``subset``, ``one`` or ``weights`` actions mean."""
    return decode(kind, actions, ActionLayout(num_teachers, ()), rows).weights


def from_weights(weights: np.ndarray) -> np.ndarray:
    """The ``weights`` action ``[rows, K]`` that means ``weights``; shares below exp(-20) of the largest become exp(-20) of it."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights / weights.max(axis=1, keepdims=True))
    action: np.ndarray = np.clip(1.0 + logs / SHARPNESS, -1.0, 1.0).astype(np.float32)
    return action


def _over(kind: Action, layout: ActionLayout) -> str:
    if kind == "joint":
        return " + ".join(f"{width} {name}" for name, width in layout.widths.items())
    return f"{len(layout.knowledge)} knowledge types" if kind in ("soft", "hard") else f"{layout.num_teachers} teachers"


def _subset(table: np.ndarray, layout: ActionLayout) -> DecodedAction:
    return DecodedAction(table / np.maximum(table.sum(1, keepdims=True), 1.0))


def _one(table: np.ndarray, layout: ActionLayout) -> DecodedAction:
    if not np.isin(table, np.arange(layout.num_teachers)).all():
        raise InputError(f"action 'one': expected teachers 0..{layout.num_teachers - 1}, got {table.ravel()}")
    return DecodedAction(np.eye(layout.num_teachers, dtype=np.float32)[table[:, 0].astype(np.int64)])


def _weights(table: np.ndarray, layout: ActionLayout) -> DecodedAction:
    sharp = np.exp(SHARPNESS * (table - table.max(1, keepdims=True)))
    return DecodedAction(sharp / sharp.sum(1, keepdims=True))


def _soft(table: np.ndarray, layout: ActionLayout) -> DecodedAction:
    return DecodedAction(_uniform(len(table), layout), gates=(table + 1.0) / 2.0)


def _hard(table: np.ndarray, layout: ActionLayout) -> DecodedAction:
    return DecodedAction(_uniform(len(table), layout), gates=table)


def _joint(table: np.ndarray, layout: ActionLayout) -> DecodedAction:
    ends = np.cumsum(list(layout.widths.values()))[:-1]
    said = dict(zip(layout.widths, np.split(table, ends, axis=1), strict=True))
    weights = _weights(said["teachers"], layout).weights if "teachers" in said else _uniform(len(table), layout)
    weights = np.where(weights >= min(MIN_TEACHER_WEIGHT, 1.0 / layout.num_teachers), weights, np.float32(0.0))
    weights = weights / weights.sum(1, keepdims=True)
    if "abstain" in said:
        weights = np.where(said["abstain"] > 0.0, np.float32(0.0), weights)
    return DecodedAction(
        weights,
        gates=(said["knowledge"] > 0.0).astype(np.float32) if "knowledge" in said else None,
        kd_weight=(said["kd_weight"][:, 0] + 1.0) / 2.0 if "kd_weight" in said else None,
        temperature_scale=MAX_TEMPERATURE_SCALE ** said["temperature"][:, 0] if "temperature" in said else None,
    )


def _uniform(rows: int, layout: ActionLayout) -> np.ndarray:
    return np.full((rows, layout.num_teachers), 1.0 / layout.num_teachers, dtype=np.float32)


_DECODE: dict[Action, Callable[[np.ndarray, ActionLayout], DecodedAction]] = {
    "subset": _subset,
    "one": _one,
    "weights": _weights,
    "soft": _soft,
    "hard": _hard,
    "joint": _joint,
}
