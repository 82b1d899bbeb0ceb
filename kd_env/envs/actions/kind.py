"""Define the base class of kinds of action: a space, the meaning of its elements, and their reward from credit.

In: ``slots`` actions as numbers. Out: a :class:`DecodedAction`. Boxes are [-1, 1], which all libraries explore well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from kd_env.envs.credit_rewards import CreditOfStep, CreditReward
from kd_env.errors import InputError
from kd_env.plugins import faults_in, is_built_in
from kd_env.spec import split, unknown
from kd_env.types import DecodedAction

FACTORS = ("teachers", "knowledge", "kd_weight", "temperature", "abstain")
"""Factors that a ``joint`` action can decide, in their order."""

ROUNDING = 1e-6
"""Weights and gates that are less than this outside their range count as its limit."""


@dataclass(frozen=True)
class ActionLayout:
    """The teachers, knowledge types and factors that an action decides about.

    Attributes:
        num_teachers: number of teachers K.
        knowledge: knowledge types that have a gate; the last is ``label`` if hard labels are used.
        factors: factors of a ``joint`` action, in the order of :data:`FACTORS`.
    """

    num_teachers: int
    knowledge: tuple[str, ...]
    factors: tuple[str, ...] = FACTORS

    @property
    def widths(self) -> dict[str, int]:
        """Numbers in each factor of a ``joint`` action."""
        widths = dict(zip(FACTORS, (self.num_teachers, len(self.knowledge), 1, 1, 1), strict=True))
        return {name: widths[name] for name in self.factors}

    def uniform(self, slots: int) -> np.ndarray:
        """Return equal weights 1/K, ``[slots, K]``."""
        return np.full((slots, self.num_teachers), 1.0 / self.num_teachers, dtype=np.float32)


class ActionKind(ABC):
    """Base class of kinds of action. Subclass :class:`TeacherAction`, :class:`KnowledgeAction` or :class:`JointAction` instead.

    Attributes:
        decides_teachers: whether an action sets the weights of teachers.
        decides_knowledge: whether an action sets the gates of knowledge types.
        replaces_kd_weight: whether the gates replace ``kd_weight``, as in AKD.
    """

    decides_teachers: ClassVar[bool] = True
    decides_knowledge: ClassVar[bool] = False
    replaces_kd_weight: ClassVar[bool] = False

    def __init__(self, layout: ActionLayout, name: str) -> None:
        """Store the layout and the kind's name in the setting ``action``."""
        self.layout, self.name = layout, name

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers the action of one slot has."""

    @property
    def contents(self) -> str:
        """Description of these numbers for error messages."""
        return f"{self.layout.num_teachers} teachers"

    @abstractmethod
    def space(self, slots: int = 1) -> spaces.Space[Any]:
        """Return the space of the actions of ``slots`` slots; with ``slots=1``, the space of one slot."""

    @abstractmethod
    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return the meaning of actions ``[slots, size]``.

        Raises:
            InputError: the actions are not in the space.
        """

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the actions that set these weights or gates. ``one`` takes the teacher with the largest weight.

        Args:
            values: weights of the teachers, ``[slots, K]``; in knowledge selection, gates of the types, ``[slots, M]``.

        Raises:
            InputError: this kind of action has no inverse, or no action sets these values.
        """
        raise InputError(
            f"action {self.name!r}: weights cannot be converted to this kind of action; return actions, or a kd_env.types.Decision"
        )

    @abstractmethod
    def credit_reward(self, credit: CreditOfStep) -> CreditReward:
        """Return the reward of the actions by their credit, and the credit that ``info`` shows."""

    @property
    def trace_columns(self) -> dict[str, int]:
        """Fields of :class:`DecodedAction` besides ``weights`` that this kind sets, with the numbers per action."""
        return {}

    def decode(self, actions: np.ndarray, slots: int) -> DecodedAction:
        """Return the meaning of the actions of ``slots`` slots.

        Raises:
            InputError: the actions are not in the space.
        """
        array = as_numbers(actions, f"action {self.name!r}")
        if array.size != slots * self.size:
            hint = "; for one teacher per action, use action=one" if array.shape == (slots,) and self.decides_teachers else ""
            raise InputError(
                f"action {self.name!r}: expected {slots * self.size} numbers for {slots} actions over {self.contents}, "
                f"got shape {array.shape}{hint}"
            )
        if array.ndim > 1 and array.shape != (slots, self.size):
            raise InputError(f"action {self.name!r}: expected shape ({slots}, {self.size}) or ({slots * self.size},), got {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"action {self.name!r}: it has NaN or infinite numbers; return finite ones")
        with faults_in(f"action {self.name!r}", type(self)):
            decoded = self.decode_table(array.reshape(slots, self.size))
        if not is_built_in(type(self)):
            self._check_decoded(decoded, slots)
        return decoded

    def _check_decoded(self, decoded: object, slots: int) -> None:
        """Refuse what a user-defined kind decodes wrongly.

        Raises:
            InputError: it is no :class:`DecodedAction`, or a field has another shape, NaN, or values out of range.
        """
        if not isinstance(decoded, DecodedAction):
            raise InputError(f"action {self.name!r}: decode_table returned a {type(decoded).__name__}; return a kd_env.types.DecodedAction")
        per_slot = {"kd_weight": (slots,), "temperature_scale": (slots,)}
        shapes = {"weights": (slots, self.layout.num_teachers), "gates": (slots, len(self.layout.knowledge)), **per_slot}
        for name, shape in shapes.items():
            values = getattr(decoded, name)
            if values is None and name != "weights":
                continue
            if not isinstance(values, np.ndarray) or values.shape != shape:
                got = values.shape if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
                raise InputError(f"action {self.name!r}: decode_table returned {name} of shape {got}, expected an array {shape}")
            if not np.isfinite(values).all() or (values < 0).any():
                raise InputError(f"action {self.name!r}: decode_table returned {name} with NaN, infinite or negative numbers")
        sums = decoded.weights.sum(1)
        if not (np.isclose(sums, 1.0, atol=1e-4) | (sums == 0.0)).all():
            raise InputError(f"action {self.name!r}: decode_table returned weights with the sum {sums.max():g}; let each row sum to 1 or 0")

    def binary(self, table: np.ndarray) -> np.ndarray:
        """Return ``table`` as float32, after a check that it contains only zeros and ones."""
        if not (correct := np.isin(table, (0.0, 1.0))).all():
            raise InputError(f"action {self.name!r}: expected zeros and ones, got {table[~correct][0]:g}")
        return table.astype(np.float32)

    def bounded(self, table: np.ndarray) -> np.ndarray:
        """Return ``table`` as float32, after a check that its values are in [-1, 1]."""
        if (too_large := np.abs(table) > 1.0).any():
            raise InputError(f"action {self.name!r}: expected numbers in [-1, 1], got {table[too_large][0]:g}; clip the actions")
        return table.astype(np.float32)

    def box(self, slots: int) -> spaces.Box:
        """Return the box [-1, 1] of the actions of ``slots`` slots."""
        return spaces.Box(-1.0, 1.0, (slots * self.size,), np.float32)


def as_numbers(actions: Any, name: str) -> np.ndarray:
    """Return actions as an array of real numbers.

    Raises:
        InputError: they are texts, objects, complex numbers, lists of different lengths or a tensor with a gradient.
    """
    try:
        array = np.asarray(actions)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: a {type(actions).__name__} is not an array of numbers ({error}); return a NumPy array") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected real numbers, got an array of {array.dtype}; return a NumPy array of numbers")
    return array


def parse_factors(text: str) -> tuple[str, ...]:
    """Return the factors of the setting ``factors``, in the order of :data:`FACTORS`.

    Raises:
        InputError: a factor is unknown, or there is none.
    """
    names = [part.strip() for part in split(text)]
    for name in names:
        if name == "strength":
            raise InputError(f"factors={text!r}: 'strength' is now called 'kd_weight'; use that name")
        if name not in FACTORS:
            raise unknown("factor", name, FACTORS)
    if not names:
        raise InputError(f"factors={text!r}: name at least one of {', '.join(FACTORS)}")
    return tuple(name for name in FACTORS if name in names)
