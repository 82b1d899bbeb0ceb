"""``linucb``: a linear bandit over teachers that sees the mini-batch (Li et al. 2010, arXiv 1003.0146, algorithm 1, disjoint models).

    theta_k = A_k^-1 b_k;    score_k = theta_k . x_k + alpha sqrt(x_k . A_k^-1 x_k);    pull the largest
    A_k <- A_k + x_k x_k^T;    b_k <- b_k + r x_k                                       (of the pulled k alone)

x_k, the context of teacher k, is the mean over the mini-batch of what the environment shows: the teacher's own columns (six with
``observation="summary"``), those of the instances, the student and the progress, and 1.

Deviations: rewards are scaled to [0, 1] by recent percentiles (:mod:`agents.bandit`); the ridge, 1 in the paper, is an
option; equal scores go to the first teacher.
"""

from __future__ import annotations

import numpy as np

from agents.bandit import Bandit
from kd_env import spec
from kd_env.envs.observations import split_teachers
from kd_env.policies import PolicyContext, Range, SearchSpace
from kd_env.types import Observation


class LinUCB(Bandit):
    """Learns while it teaches: one ridge regression per teacher."""

    paper = "Li et al. 2010, arXiv 1003.0146"
    search_space: SearchSpace = {"alpha": Range(0.1, 5.0, log=True), "ridge": Range(0.1, 10.0, log=True)}

    def __init__(self, context: PolicyContext, seed: int = 0, alpha: float = 1.5, ridge: float = 1.0, memory: int = 100) -> None:
        """Start with an expected reward of 0 for every teacher.

        Args:
            alpha: width of the confidence bound, in standard deviations; the paper's ``1 + sqrt(ln(2 / delta) / 2)`` is above 1.
            ridge: L2 regularisation, above 0.
            memory: number of recent rewards that set the scale.
        """
        spec.numbers("linucb", least=0, alpha=alpha)
        spec.numbers("linucb", above=0, ridge=ridge)
        super().__init__(context, seed, {"alpha": alpha, "ridge": ridge, "memory": memory})
        self.alpha = alpha
        blocks = dict(context.columns)
        size = blocks.pop("teachers", 0) // self.num_arms + sum(blocks.values()) + 1  # d
        self.gram = np.stack([ridge * np.eye(size)] * self.num_arms)  # A, [K, d, d]
        self.paid = np.zeros((self.num_arms, size))  # b, [K, d]

    def contexts(self, observation: Observation) -> np.ndarray:
        """Return x, ``[K, d]``, from blocks ``[1, F]``."""
        shared = [block[0] for name, block in observation.items() if name != "teachers"]
        common = np.tile(np.concatenate([*shared, np.ones(1)]), (self.num_arms, 1))
        if "teachers" not in observation:
            return common
        return np.concatenate([split_teachers(observation, self.num_arms)[0], common], 1, dtype=np.float64)

    def scores(self, observation: Observation) -> np.ndarray:
        """Return the upper bounds ``[K]``."""
        contexts = self.contexts(observation)
        solved = np.linalg.solve(self.gram, np.stack([self.paid, contexts], 2))  # [K, d, 2]
        expected, spread = (np.einsum("kd,kd->k", contexts, solved[:, :, part]) for part in (0, 1))
        return np.asarray(expected + self.alpha * np.sqrt(spread))

    def choose(self, observation: Observation) -> int:
        """Return the arm with the largest upper bound."""
        return int(self.scores(observation).argmax())

    def learn_from(self, arm: int, reward: float, observation: Observation) -> None:
        """Add an example to the regression of ``arm``."""
        context = self.contexts(observation)[arm]
        self.gram[arm] += np.outer(context, context)
        self.paid[arm] += reward * context

    def learned(self) -> dict[str, np.ndarray]:
        """Return A and b."""
        return {"gram": self.gram.copy(), "paid": self.paid.copy()}

    def load_learned(self, learned: dict[str, np.ndarray]) -> None:
        """Continue from what :meth:`learned` returned."""
        self.gram, self.paid = learned["gram"].copy(), learned["paid"].copy()
