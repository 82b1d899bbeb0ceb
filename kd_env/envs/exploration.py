"""A bonus for exploring knowledge: paid for other gates than in earlier phases (AKD; Wang et al. 2022, arXiv 2302.00444).

The paper says that the bonus of soft actions follows from the cosine to the previous phase's, and that of hard actions from how often an
action was taken. That the first is one minus the cosine, and the second the inverse root of the count, is our reading.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kd_env.types import DecodedAction


class ExplorationBonus:
    """Remembers the gates that each student was taught with."""

    def __init__(self, weight: float, num_students: int, hard: bool) -> None:
        """Begin without memory; ``weight`` multiplies the bonus, 0 turns it off; ``hard`` says that gates are 0 or 1."""
        self.weight, self.hard = weight, hard
        self.memory: list[dict[str, Any]] = [{} for _ in range(num_students)]  # JSON's types, so that snapshots can hold it

    def pay(self, action: DecodedAction) -> np.ndarray | None:
        """Return the bonus of each student's action ``[S]`` and remember it; ``None`` where there is no bonus."""
        if self.weight == 0.0:
            return None
        assert action.gates is not None
        return self.weight * (self._hard(action.gates) if self.hard else self._soft(action.gates))

    def reset_student(self, student: int) -> None:
        """Forget what one student was taught with."""
        self.memory[student] = {}

    def _soft(self, gates: np.ndarray) -> np.ndarray:
        previous = [memory.get("gates", [0.0] * gates.shape[1]) for memory in self.memory]
        bonus = soft_bonus(gates, np.array(previous))
        for memory, row in zip(self.memory, gates, strict=True):
            memory["gates"] = row.tolist()
        return bonus

    def _hard(self, gates: np.ndarray) -> np.ndarray:
        names = ["".join(str(int(gate)) for gate in row) for row in gates]
        for memory, name in zip(self.memory, names, strict=True):
            memory[name] = memory.get(name, 0) + 1
        return hard_bonus(np.array([memory[name] for memory, name in zip(self.memory, names, strict=True)]))


def soft_bonus(gates: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Return 1 - cosine to the previous phase's gates, ``[S, M]`` twice -> ``[S]``; gates of zeros resemble none."""
    norms = np.linalg.norm(gates, axis=1) * np.linalg.norm(previous, axis=1)
    cosine: np.ndarray = np.divide((gates * previous).sum(1), norms, out=np.zeros(len(gates)), where=norms > 0.0)
    return 1.0 - cosine


def hard_bonus(times: np.ndarray) -> np.ndarray:
    """Return the inverse root of how many ``times [S]`` an action was taken, this time included."""
    bonus: np.ndarray = np.asarray(times, dtype=np.float64) ** -0.5
    return bonus
