"""``held_credit``: starts from the stacking of the teachers, learns from credit near that start, and leaves it if it earns too little.

The start w is fitted by supervision on the reward labels (:mod:`baselines.stacking`). Two policies then learn from the credit of every
teacher of every instance, as :mod:`agents.gradient_credit` does. The held policy stays near the start, the free policy begins uniform:

    held:  J = mean_b [ sum_k pi_bk r_bk - hold * KL(pi_b || w_b) ],     pi = softmax(log w + residual)
    free:  J = mean_b [ sum_k rho_bk r_bk - prior * KL(rho_b || 1/K) ],  rho = softmax(residual)

The student is taught with ``trust * pi + (1 - trust) * softmax(sharpness * log rho)``. Trust is close to 1 at first. At every step its
log-odds grow by ``rate * (credit of the held policy - release * credit of the free policy)``, between -4 and 4: exponentiated gradient
(Kivinen and Warmuth 1997) between two policies. So the start is kept as long as it earns a part of what credit alone can earn; where the
reward labels mislead about teaching value, or the teachers change, credit alone takes over.

It is :mod:`agents.crossfit_credit` without folds: the policies are judged by credit of labels that they have learned from, and
the start itself has no share. The method is our own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from agents.crossfit_credit import CrossfitCredit, Proposal
from agents.entropy import normalized_entropy
from kd_env.policies import PolicyContext, Transition
from kd_env.types import Observation

MAX_LOG_ODDS = 4.0


class HeldCredit(CrossfitCredit):
    """Learns while it teaches. The result is the student that the run trains."""

    name = "held_credit"
    uses_folds = False
    env_options: dict[str, Any] = {**CrossfitCredit.env_options, "credit": "first_order(smoothing=-0.3)"}

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float = 5e-4,
        hold: float = 1.0,
        release: float = 0.5,
        rate: float = 0.3,
        floor: float = 0.01,
    ) -> None:
        """Fit the start.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the start and of the residuals.
            learning_rate: of Adam.
            hold: weight of the held policy's KL to the start, in units of normalised credit.
            release: part of the free policy's credit that the held policy must earn to be trusted; 0 for a start that is never left.
            rate: step of the log-odds of trust.
            floor: weight that all teachers share equally, whatever the policies say.
        """
        super().__init__(context, seed, learning_rate, hold, release, rate, floor)
        self.release = release
        self.log_odds = MAX_LOG_ODDS

    @property
    def trust(self) -> float:
        """Weight of the held policy; 1 with ``release=0``."""
        return 1.0 / (1.0 + math.exp(-self.log_odds)) if self.release else 1.0

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the present weights for the mini-batch that :meth:`act` saw last, ``[num_envs]``."""
        instances, log_priors, _ = self._proposal
        return normalized_entropy(self._mixed(self._proposed(instances, log_priors)))

    def update(self, transition: Transition) -> None:
        """Learn from the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = torch.from_numpy(transition.info["credit"]).float()  # [n, K]
        instances, log_priors, policies = self._proposal
        if self.release:
            held, free = ((policy * credit).sum(1).mean().item() for policy in policies[1:, 0])
            log_odds = self.log_odds + self.rate * (held - self.release * free)
            self.log_odds = min(max(log_odds, -MAX_LOG_ODDS), MAX_LOG_ODDS)
        self.learners.learn(instances, log_priors, credit)

    def _mixed(self, proposal: Proposal) -> np.ndarray:
        held, free = proposal.policies[1:, 0]  # [n, K] each
        policy = self.trust * held + (1.0 - self.trust) * free
        weights: np.ndarray = ((1.0 - self.floor) * policy + self.floor / policy.shape[1]).numpy()
        return weights

    def state(self) -> dict[str, Any]:
        """Return start, policies and trust."""
        return {"start": self.start.state_dict(), "learners": self.learners.state(), "log_odds": self.log_odds}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.start.load_state_dict(state["start"])
        self.learners.load_state(state["learners"])
        self.log_odds = state["log_odds"]
