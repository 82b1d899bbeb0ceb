"""``held_credit``: starts from the stacking of the teachers, learns from credit near that start, and leaves it if it earns too little.

The start w, the held policy pi and the free policy rho are those of :mod:`agents.credit_policies`. The held policy stays near the start,
which is fitted by supervision on the reward labels; the free policy begins uniform.

The student is taught with ``trust * pi + (1 - trust) * softmax(3 log rho)``. Trust is close to 1 at first. At every step its
log-odds grow by ``rate * (credit of the held policy - release * credit of the free policy)``, between -4 and 4: exponentiated gradient
(Kivinen and Warmuth 1997) between two policies. So the start is kept as long as it earns a part of what credit alone can earn; where the
reward labels mislead about teaching value, or the teachers change, credit alone takes over.

The policies are judged by credit of labels that they have learned from; :mod:`agents.crossfit_credit` is not. The method is our own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.credit_policies import SEARCH_SPACE, CreditPolicies, check_options
from agents.credit_stack import CreditStack
from agents.entropy import normalized_entropy
from agents.saving import SavedAgent
from kd_env.envs.actions import action_of_weights
from kd_env.policies import PolicyContext, SearchSpace, Transition
from kd_env.types import Observation

MAX_LOG_ODDS = 4.0


class HeldCredit(SavedAgent):
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward labels"
    learns_from = "reward labels, then credit of every teacher"
    paper = ""
    any_student = True
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "reward": "dev_improvement",
        "credit": "first_order(smoothing=-0.3)",
    }
    stack = CreditStack
    search_space: SearchSpace = SEARCH_SPACE

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
        check_options("held_credit", context, learning_rate, hold, release, rate, floor)
        self.context, self.release, self.rate, self.floor = context, release, rate, floor
        self.options = {"seed": seed, "learning_rate": learning_rate, "hold": hold, "release": release, "rate": rate, "floor": floor}
        self.policies = CreditPolicies(context, seed, learning_rate, hold, num_folds=1)
        self.log_odds = MAX_LOG_ODDS

    @property
    def trust(self) -> float:
        """Weight of the held policy; 1 with ``release=0``."""
        return 1.0 / (1.0 + math.exp(-self.log_odds)) if self.release else 1.0

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions. They depend on the mini-batch about to be taught, and not on the observation."""
        self.proposal = self.policies.propose(self.context.batch())
        self.proposed = self.proposal.policies
        return action_of_weights(self.mixed())

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the weights that :meth:`act` returned last, ``[num_envs]``."""
        return normalized_entropy(self.mixed())

    def update(self, transition: Transition) -> None:
        """Learn from the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = torch.from_numpy(transition.info["credit"]).float()  # [n, K]
        self.compare(credit)
        self.policies.learn(self.proposal, credit)

    def compare(self, credit: Tensor, fold: int = 0) -> int | None:
        """Change the trust by the credit ``[n, K]`` of held and free policy. There are no folds, so ``None`` is left out of the step."""
        if self.release:
            held, free = ((policy * credit).sum(1).mean().item() for policy in self.proposed[1:, 0])
            log_odds = self.log_odds + self.rate * (held - self.release * free)
            self.log_odds = min(max(log_odds, -MAX_LOG_ODDS), MAX_LOG_ODDS)
        return None

    def mixed(self) -> np.ndarray:
        """Return the weights ``[n, K]`` for the proposed ones, ``[3, folds, n, K]``."""
        held, free = self.proposed[1:, 0]  # [n, K] each
        policy = self.trust * held + (1.0 - self.trust) * free
        weights: np.ndarray = ((1.0 - self.floor) * policy + self.floor / policy.shape[1]).numpy()
        return weights

    def state(self) -> dict[str, Any]:
        """Return start, policies and trust."""
        return {**self.policies.state(), "log_odds": self.log_odds}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.policies.load_state(state)
        self.log_odds = state["log_odds"]
