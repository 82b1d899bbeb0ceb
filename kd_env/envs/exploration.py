"""Pay a bonus for gates that differ from those of earlier phases (AKD; Wang et al. 2022, arXiv 2302.00444).

In the paper, the bonus of soft actions depends on the cosine to the action of the previous phase, and the bonus of hard actions on the
number of times that the action was taken. One minus the cosine, and the inverse root of the count, are this project's choice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kd_env.types import DecodedAction


class ExplorationBonus:
    """Computes the bonus and remembers the gates of each student."""

    def __init__(self, weight: float, num_students: int, hard: bool) -> None:
        """Start without memory.

        Args:
            weight: factor of the bonus; 0 turns it off.
            num_students: number of students S.
            hard: whether gates are 0 or 1.
        """
        self.weight, self.hard = weight, hard
        self.memory: list[dict[str, Any]] = [{} for _ in range(num_students)]  # types that JSON has, for snapshots

    def pay(self, action: DecodedAction) -> np.ndarray | None:
        """Return the bonus of each student's action, ``[S]``, and remember the action; ``None`` if the bonus is off."""
        if self.weight == 0.0:
            return None
        assert action.gates is not None
        return self.weight * (self._hard(action.gates) if self.hard else self._soft(action.gates))

    def reset_student(self, student: int) -> None:
        """Forget the gates of one student."""
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
    """Return 1 - cosine to the previous phase's gates, ``[S, M]``, ``[S, M]`` -> ``[S]``; the cosine of zero gates is 0."""
    norms = np.linalg.norm(gates, axis=1) * np.linalg.norm(previous, axis=1)
    cosine: np.ndarray = np.divide((gates * previous).sum(1), norms, out=np.zeros(len(gates)), where=norms > 0.0)
    return 1.0 - cosine


def hard_bonus(times: np.ndarray) -> np.ndarray:
    """Return the inverse root of ``times [S]``, the number of times that the action was taken, including this time."""
    bonus: np.ndarray = np.asarray(times, dtype=np.float64) ** -0.5
    return bonus
