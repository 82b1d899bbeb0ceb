"""Define actions that select knowledge types: ``soft`` and ``hard`` (AKD; Wang et al. 2022, arXiv 2302.00444).

All teachers have equal weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from kd_env.envs import credit_rewards
from kd_env.envs.actions.kind import ROUNDING, ActionKind
from kd_env.envs.credit_rewards import CreditOfStep, CreditReward
from kd_env.errors import InputError
from kd_env.types import DecodedAction


class KnowledgeAction(ActionKind):
    """Base class of kinds of action that set a gate for each knowledge type. A gate multiplies the type's strength."""

    decides_teachers = False
    decides_knowledge = True
    replaces_kd_weight = True

    @property
    def size(self) -> int:
        """Number of knowledge types M, including ``label`` if it is used."""
        return len(self.layout.knowledge)

    @property
    def contents(self) -> str:
        """Description of these numbers for error messages."""
        return f"{self.size} knowledge types"

    @property
    def trace_columns(self) -> dict[str, int]:
        """The gates of the types."""
        return {"gates": self.size}

    def credit_reward(self, credit: CreditOfStep) -> CreditReward:
        """Return the sum of gates times credit as the reward, and the credit of the types, ``[slots, M]``."""
        pairs, label = credit_rewards.pairs_and_label(credit)
        gates = credit.decoded.gates
        assert gates is not None
        return credit_rewards.knowledge_reward(pairs, label, credit.tensor(credit.decoded.weights), credit.tensor(gates))


class Soft(KnowledgeAction):
    """Set a gate in [0, 1] for each knowledge type: ``(a + 1) / 2``."""

    def space(self, slots: int = 1) -> spaces.Space[Any]:
        """Return ``Box(-1, 1, (slots * M,))``."""
        return self.box(slots)

    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return the gates, in [0, 1]."""
        return DecodedAction(self.layout.uniform(len(table)), gates=(self.bounded(table) + 1.0) / 2.0)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return ``2 g - 1`` for gates ``g``, which must be in [0, 1]."""
        if (outside := (values < -ROUNDING) | (values > 1.0 + ROUNDING)).any():
            raise InputError(f"action {self.name!r}: gates are in [0, 1], got {values[outside][0]:g}; clip them")
        actions: np.ndarray = (2.0 * np.clip(values, 0.0, 1.0) - 1.0).astype(np.float32)
        return actions


class Hard(KnowledgeAction):
    """Turn each knowledge type on or off."""

    def space(self, slots: int = 1) -> spaces.Space[Any]:
        """Return ``MultiBinary(slots * M)``."""
        return spaces.MultiBinary(slots * self.size)

    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return the gates, 0 or 1."""
        return DecodedAction(self.layout.uniform(len(table)), gates=self.binary(table))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the gates, which must be 0 or 1."""
        if (wrong := ~np.isin(values, (0.0, 1.0)) & ~np.isnan(values)).any():
            raise InputError(f"action {self.name!r}: gates are 0 or 1, got {values[wrong][0]:g}; return zeros and ones, or use action=soft")
        gates: np.ndarray = np.nan_to_num(values).astype(np.int8)  # NaN: of a student that diverges
        return gates
