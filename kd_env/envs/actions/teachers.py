"""Define actions that select or weight teachers: ``subset``, ``one`` and ``weights``."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from kd_env.envs import credit_rewards
from kd_env.envs.actions.kind import ROUNDING, ActionKind
from kd_env.envs.credit_rewards import CreditOfStep, CreditReward
from kd_env.errors import InputError
from kd_env.types import DecodedAction

SHARPNESS = 10.0
"""Factor of ``weights`` actions before the softmax. Without it, one teacher of four could not get more than .71, since a is in [-1, 1]."""

UNEQUAL = 1e-4
"""Weights of a slot that differ by more than this part of the largest are different."""


class TeacherAction(ActionKind):
    """Base class of kinds of action that set only the weights of teachers. The weights apply to all knowledge types."""

    @property
    def size(self) -> int:
        """Number of teachers K."""
        return self.layout.num_teachers

    def credit_reward(self, credit: CreditOfStep) -> CreditReward:
        """Return the sum of weights times credit as the reward, and the credit of the teachers, ``[S * B, K]``."""
        return credit_rewards.teacher_reward(credit.by_type, credit.decision, credit.normalize)

    def _non_negative(self, weights: np.ndarray) -> np.ndarray:
        """Return weights ``[slots, K]`` of at least 0. Rounding below 0 becomes 0.

        Raises:
            InputError: a weight is negative.
        """
        if (weights < -ROUNDING).any():
            raise InputError(f"action {self.name!r}: weights below 0, such as {weights.min():g}; return weights of at least 0")
        at_least_0: np.ndarray = np.maximum(weights, 0.0)
        return at_least_0

    def _with_a_teacher(self, weights: np.ndarray) -> np.ndarray:
        """Return weights ``[slots, K]`` of at least 0, for an action that selects at least one teacher.

        Raises:
            InputError: a weight is negative, or all weights of a slot are 0.
        """
        weights = self._non_negative(weights)
        largest = weights.max(1)
        if (largest == 0.0).any():
            raise InputError(
                f"action {self.name!r} cannot say that no teacher teaches an instance, and the weights of slot {int(largest.argmin())} "
                "are all 0; use action=subset, or return a kd_env.types.Decision"
            )
        return weights


class Subset(TeacherAction):
    """Select any set of teachers, which get equal weights; the empty set is legal."""

    def space(self, slots: int = 1) -> spaces.Space[Any]:
        """Return ``MultiBinary(slots * K)``."""
        return spaces.MultiBinary(slots * self.size)

    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return equal weights for the selected teachers, and zeros for an empty set."""
        table = self.binary(table)
        return DecodedAction(table / np.maximum(table.sum(1, keepdims=True), 1.0))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return 1 for each teacher with a weight above 0. These weights must be equal."""
        values = self._non_negative(values)
        selected, largest = values > 0.0, values.max(1, keepdims=True)
        if (unequal := (selected & (values < (1.0 - UNEQUAL) * largest)).any(1)).any():
            weights = np.array2string(values[unequal][0], precision=3, threshold=8)
            raise InputError(
                f"action {self.name!r} gives the selected teachers equal weights, and the weights of a slot are {weights}; use "
                'action=weights (in a class, env_options = {"action": "weights"}), or return a kd_env.types.Decision'
            )
        return selected.astype(np.int8)


class One(TeacherAction):
    """Select one teacher."""

    @property
    def size(self) -> int:
        """Numbers in one action: 1, the index of the teacher."""
        return 1

    def space(self, slots: int = 1) -> spaces.Space[Any]:
        """Return ``Discrete(K)``, or ``MultiDiscrete([K] * slots)``."""
        count = self.layout.num_teachers
        return spaces.Discrete(count) if slots == 1 else spaces.MultiDiscrete([count] * slots)

    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return weight 1 for the selected teacher."""
        count = self.layout.num_teachers
        if not np.isin(table, np.arange(count)).all():
            raise InputError(f"action {self.name!r}: expected teachers 0..{count - 1}, got {table.ravel()}")
        return DecodedAction(np.eye(count, dtype=np.float32)[table[:, 0].astype(np.int64)])

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the teacher with the largest weight."""
        return np.asarray(self._with_a_teacher(values).argmax(1))


class Weights(TeacherAction):
    """Set weights over the teachers: ``softmax(10 a)``."""

    def space(self, slots: int = 1) -> spaces.Space[Any]:
        """Return ``Box(-1, 1, (slots * K,))``."""
        return self.box(slots)

    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return ``softmax(10 a)`` of each slot's numbers."""
        return DecodedAction(sharp_softmax(self.bounded(table)))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the action with these weights, divided by their sum, see :func:`action_of_weights`."""
        return action_of_weights(self._with_a_teacher(values))


def sharp_softmax(table: np.ndarray) -> np.ndarray:
    """Return ``softmax(10 a)`` over the teachers, ``[slots, K]``."""
    exponentials = np.exp(SHARPNESS * (table - table.max(1, keepdims=True)))
    weights: np.ndarray = exponentials / exponentials.sum(1, keepdims=True)
    return weights


def action_of_weights(weights: np.ndarray) -> np.ndarray:
    """Return the ``weights`` action ``[slots, K]`` that decodes to ``weights``. A weight is at least exp(-20) times the largest."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights / weights.max(axis=1, keepdims=True))
    action: np.ndarray = np.clip(1.0 + logs / SHARPNESS, -1.0, 1.0).astype(np.float32)
    return action
