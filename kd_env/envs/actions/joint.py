"""Define the ``joint`` action: teachers, knowledge types, kd_weight and temperature in one box."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from kd_env.envs import credit_rewards
from kd_env.envs.actions.kind import ActionKind
from kd_env.envs.actions.teachers import sharp_softmax
from kd_env.envs.credit_rewards import CreditOfStep, CreditReward
from kd_env.types import DecodedAction

MIN_TEACHER_WEIGHT = 0.01
"""Smaller weights of teachers become 0."""
MAX_TEMPERATURE_SCALE = 4.0
"""Largest factor by which the temperature is multiplied or divided."""

COLUMNS = {"knowledge": "gates", "kd_weight": "kd_weight", "temperature": "temperature_scale"}
"""Field of :class:`DecodedAction` that a factor sets; the other factors set ``weights``."""


class JointAction(ActionKind):
    """Set the factors of the setting ``factors`` with one box. A factor that is left out keeps its value from the settings."""

    decides_knowledge = True

    @property
    def size(self) -> int:
        """Numbers in one action: the sum over the factors."""
        return sum(self.layout.widths.values())

    @property
    def contents(self) -> str:
        """Description of these numbers for error messages."""
        return " + ".join(f"{width} {name}" for name, width in self.layout.widths.items())

    @property
    def trace_columns(self) -> dict[str, int]:
        """Fields of :class:`DecodedAction` besides ``weights`` that the factors set, with their widths."""
        return {COLUMNS[name]: width for name, width in self.layout.widths.items() if name in COLUMNS}

    def space(self, slots: int = 1) -> spaces.Space[Any]:
        """Return ``Box(-1, 1, (slots * A,))``."""
        return self.box(slots)

    def decode_table(self, table: np.ndarray) -> DecodedAction:
        """Return the decoded factors."""
        layout, table = self.layout, self.bounded(table)
        split_indices = np.cumsum(list(layout.widths.values()))[:-1]
        factors = dict(zip(layout.widths, np.split(table, split_indices, axis=1), strict=True))
        weights = sharp_softmax(factors["teachers"]) if "teachers" in factors else layout.uniform(len(table))
        weights = np.where(weights >= min(MIN_TEACHER_WEIGHT, 1.0 / layout.num_teachers), weights, np.float32(0.0))
        weights = weights / weights.sum(1, keepdims=True)
        if "abstain" in factors:
            weights = np.where(factors["abstain"] > 0.0, np.float32(0.0), weights)
        return DecodedAction(
            weights,
            gates=(factors["knowledge"] > 0.0).astype(np.float32) if "knowledge" in factors else None,
            kd_weight=(factors["kd_weight"][:, 0] + 1.0) / 2.0 if "kd_weight" in factors else None,
            temperature_scale=MAX_TEMPERATURE_SCALE ** factors["temperature"][:, 0] if "temperature" in factors else None,
        )

    def credit_reward(self, credit: CreditOfStep) -> CreditReward:
        """Return the credit of the types that are on as the reward, and the credit ``[slots, K]`` and ``[slots, M]``."""
        pairs, label = credit_rewards.pairs_and_label(credit)
        decoded, weights = credit.decoded, credit.tensor(credit.decoded.weights)
        gates = pairs.new_ones(credit.num_slots, len(self.layout.knowledge)) if decoded.gates is None else credit.tensor(decoded.gates)
        if decoded.kd_weight is None:
            kd_weight = pairs.new_full((credit.num_slots,), credit.kd_weight)
        else:
            kd_weight = credit.tensor(decoded.kd_weight)
        return credit_rewards.joint_reward(pairs, label, weights, gates, kd_weight)
