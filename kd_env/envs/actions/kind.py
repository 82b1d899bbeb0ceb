"""What a kind of action is: a space, what a point of it means, and how it is paid from credit.

In: ``rows`` actions, numbers that any library can give. Out: a :class:`DecodedAction`. Boxes are [-1, 1], which
every library explores well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from kd_env.envs.credit_rewards import CreditOfStep, CreditReward
from kd_env.errors import InputError
from kd_env.spec import split, unknown
from kd_env.types import DecodedAction

FACTORS = ("teachers", "knowledge", "kd_weight", "temperature", "abstain")
"""What a ``joint`` action can decide."""


@dataclass(frozen=True)
class ActionLayout:
    """What there is to decide.

    Attributes:
        num_teachers: K.
        knowledge: the knowledge types that have a gate; ``label`` is the last where labels are part of the setting.
        factors: what a ``joint`` action decides, in the order of :data:`FACTORS`.
    """

    num_teachers: int
    knowledge: tuple[str, ...]
    factors: tuple[str, ...] = FACTORS

    @property
    def widths(self) -> dict[str, int]:
        """How many numbers each factor of a ``joint`` action has."""
        widths = dict(zip(FACTORS, (self.num_teachers, len(self.knowledge), 1, 1, 1), strict=True))
        return {name: widths[name] for name in self.factors}

    def uniform(self, rows: int) -> np.ndarray:
        """Return weights ``[rows, K]`` of 1/K."""
        return np.full((rows, self.num_teachers), 1.0 / self.num_teachers, dtype=np.float32)


class ActionKind(ABC):
    """A kind of action; derive from :class:`TeacherAction`, :class:`KnowledgeAction` or :class:`JointAction`, not from this class.

    Attributes:
        decides_teachers: whether an action weighs teachers.
        decides_knowledge: whether an action gates knowledge types.
        replaces_kd_weight: the gates alone are the strengths of the types, ``kd_weight`` does not apply (AKD).
    """

    decides_teachers: ClassVar[bool] = True
    decides_knowledge: ClassVar[bool] = False
    replaces_kd_weight: ClassVar[bool] = False

    def __init__(self, layout: ActionLayout, name: str) -> None:
        """Keep what there is to decide; ``name`` is how the setting calls this kind."""
        self.layout, self.name = layout, name

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers one decision has."""

    @property
    def contents(self) -> str:
        """What those numbers are about, for messages."""
        return f"{self.layout.num_teachers} teachers"

    @abstractmethod
    def space(self, rows: int = 1) -> spaces.Space[Any]:
        """Return the space of ``rows`` decisions taken in one step; of a single slot when ``rows`` is 1."""

    @abstractmethod
    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return what actions ``[rows, size]`` mean.

        Raises:
            InputError: the actions are not in the space.
        """

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the actions that mean ``values``, the inverse of :meth:`decode` where there is one.

        Args:
            values: weights of the teachers ``[rows, K]``, or of knowledge selection the gates ``[rows, M]``.

        Raises:
            InputError: this kind of action has no such inverse.
        """
        raise InputError(f"action {self.name!r}: weights cannot be turned into it; return actions, or a kd_env.types.Decision")

    @abstractmethod
    def credit_reward(self, credit: CreditOfStep) -> CreditReward:
        """Return what the decisions were worth by the credit."""

    @property
    def trace_columns(self) -> dict[str, int]:
        """Fields of :class:`DecodedAction` besides ``weights`` that this kind sets, and how many numbers a decision has in each."""
        return {}

    def decode(self, actions: np.ndarray, rows: int) -> DecodedAction:
        """Return what the actions of ``rows`` decisions mean.

        Raises:
            InputError: the actions are not in the space.
        """
        array = np.asarray(actions)
        if array.size != rows * self.size:
            raise InputError(
                f"action {self.name!r}: expected {rows * self.size} numbers for {rows} decisions over {self.contents}, "
                f"got shape {array.shape}"
            )
        if array.ndim > 1 and array.shape != (rows, self.size):
            raise InputError(f"action {self.name!r}: expected shape ({rows}, {self.size}) or ({rows * self.size},), got {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"action {self.name!r}: holds NaN or infinite numbers")
        return self.decode_table(array.reshape(rows, self.size))

    def binary(self, table: np.ndarray) -> np.ndarray:
        """Return ``table`` as float32, after checking that it holds zeros and ones."""
        if not np.isin(table, (0.0, 1.0)).all():
            raise InputError(f"action {self.name!r}: expected zeros and ones")
        return table.astype(np.float32)

    def bounded(self, table: np.ndarray) -> np.ndarray:
        """Return ``table`` as float32, after checking that it lies in [-1, 1]."""
        if (np.abs(table) > 1.0).any():
            raise InputError(f"action {self.name!r}: expected numbers in [-1, 1]")
        return table.astype(np.float32)

    def box(self, rows: int) -> spaces.Box:
        """Return the box [-1, 1] of ``rows`` decisions."""
        return spaces.Box(-1.0, 1.0, (rows * self.size,), np.float32)


def parse_factors(text: str) -> tuple[str, ...]:
    """Read the ``factors`` setting.

    Raises:
        InputError: an unknown factor, or none.
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
