"""``exp3``: exponential weights for exploration and exploitation over teachers (Auer et al. 2002, SIAM J. Computing 32(1)).

    p_k = (1 - gamma) w_k / sum w + gamma / K;    draw k from p;    w_k <- w_k exp(gamma x_k / (p_k K))

x_k in [0, 1] is the reward of the drawn teacher k. x_k / p_k, and 0 for the others, are unbiased estimates of all rewards. Nothing is
assumed about how rewards arise, so the method stays valid when the student changes, but it never forgets what it learned.

Deviations: rewards are scaled to [0, 1] by recent percentiles (:mod:`agents.bandit`); gamma is an option instead of being set from the
horizon.
"""

from __future__ import annotations

import numpy as np

from agents.bandit import Bandit
from agents.entropy import normalized_entropy
from kd_env import spec
from kd_env.policies import PolicyContext, Range, SearchSpace
from kd_env.types import Observation


class EXP3(Bandit):
    """Learns while it teaches and ignores what it observes."""

    paper = "Auer et al. 2002"
    search_space: SearchSpace = {"gamma": Range(0.01, 0.5, log=True)}
    any_student = True

    def __init__(self, context: PolicyContext, seed: int = 0, gamma: float = 0.1, memory: int = 100) -> None:
        """Start with equal weights.

        Args:
            gamma: share of uniform exploration, in (0, 1], and the learning rate.
            memory: number of recent rewards that set the scale.
        """
        spec.numbers("exp3", above=0, most=1, gamma=gamma)
        super().__init__(context, seed, {"gamma": gamma, "memory": memory})
        self.gamma = gamma
        self.log_weights = np.zeros(self.num_arms)

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of pulling each arm, ``[K]``."""
        weights = np.exp(self.log_weights - self.log_weights.max())
        probabilities: np.ndarray = (1.0 - self.gamma) * weights / weights.sum() + self.gamma / self.num_arms
        return probabilities

    def choose(self, observation: Observation) -> int:
        """Draw an arm."""
        return int(self.rng.choice(self.num_arms, p=self.probabilities))

    def learn_from(self, arm: int, reward: float, observation: Observation) -> None:
        """Raise the weight of ``arm``, more for an arm that was less likely."""
        self.log_weights[arm] += self.gamma * reward / (self.probabilities[arm] * self.num_arms)

    def learned(self) -> dict[str, np.ndarray]:
        """Return the logarithms of the weights."""
        return {"log_weights": self.log_weights.copy()}

    def load_learned(self, learned: dict[str, np.ndarray]) -> None:
        """Continue from what :meth:`learned` returned."""
        self.log_weights = learned["log_weights"].copy()

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy of the arms' probabilities over ln K, ``[1]``."""
        return normalized_entropy(self.probabilities[None])
