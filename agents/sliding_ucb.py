"""``sliding_ucb``: upper confidence bounds over the last pulls alone (Garivier & Moulines 2008, arXiv 0805.3415, SW-UCB).

    score_k = mean_k + sqrt(xi ln(min(t, window)) / N_k)

mean_k and N_k are the mean reward and the number of pulls of teacher k among the last ``window`` pulls of all teachers; a teacher without
any is pulled first. So the best teacher may change while the student learns. The paper's bound B on rewards is 1 here.

Deviations: rewards are scaled to [0, 1] by recent percentiles (:mod:`agents.bandit`); xi (above 1/2 in the paper's theorem) and the window
(of the order of sqrt(T ln T)) are options instead of being set from the horizon. Equal scores go to the first teacher.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from agents.bandit import Bandit
from kd_env import spec
from kd_env.policies import PolicyContext, Range, SearchSpace
from kd_env.types import Observation


class SlidingUCB(Bandit):
    """Learns while it teaches, forgets old pulls, and ignores what it observes."""

    paper = "Garivier & Moulines 2008, arXiv 0805.3415"
    search_space: SearchSpace = {"window": Range(50, 800, log=True), "xi": Range(0.1, 2.0, log=True)}
    any_student = True

    def __init__(self, context: PolicyContext, seed: int = 0, window: int = 200, xi: float = 0.6, memory: int = 100) -> None:
        """Start without pulls.

        Args:
            window: number of pulls that are remembered, at least K.
            xi: width of the confidence bound.
            memory: number of recent rewards that set the scale.
        """
        spec.numbers("sliding_ucb", least=0, xi=xi)
        super().__init__(context, seed, {"window": window, "xi": xi, "memory": memory})
        spec.numbers("sliding_ucb", least=self.num_arms, whole=True, window=window)  # so that each teacher can be pulled once
        self.xi = xi
        self.pulls: deque[tuple[int, float]] = deque(maxlen=window)  # arm and reward

    def scores(self) -> np.ndarray:
        """Return the upper bounds ``[K]``, infinite for an arm without pulls in the window."""
        arms = np.array([arm for arm, _ in self.pulls], dtype=np.int64)
        count = np.bincount(arms, minlength=self.num_arms)
        paid = np.bincount(arms, weights=[reward for _, reward in self.pulls], minlength=self.num_arms)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = paid / count + np.sqrt(self.xi * np.log(max(len(arms), 1)) / count)
        return np.where(count > 0, bound, np.inf)

    def choose(self, observation: Observation) -> int:
        """Return the arm with the largest upper bound."""
        return int(self.scores().argmax())

    def learn_from(self, arm: int, reward: float, observation: Observation) -> None:
        """Remember the pull, and forget the oldest one if the window is full."""
        self.pulls.append((arm, reward))

    def learned(self) -> dict[str, np.ndarray]:
        """Return the pulls of the window."""
        return {"arms": np.array([arm for arm, _ in self.pulls], dtype=np.int64), "rewards": np.array([paid for _, paid in self.pulls])}

    def load_learned(self, learned: dict[str, np.ndarray]) -> None:
        """Continue from what :meth:`learned` returned."""
        self.pulls.clear()
        self.pulls.extend(zip(learned["arms"].tolist(), learned["rewards"].tolist(), strict=True))
