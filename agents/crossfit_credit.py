"""``crossfit_credit``: learns from credit, and trusts what it learned as far as credit of other labels confirms it.

Three policies weigh the teachers of every instance: the start w, the held policy pi and the free policy rho of
:mod:`agents.credit_policies`.

The reward labels are divided into folds, and the credit r_bk of an update comes from the labels of one fold, each in turn. The held and
the free policy have one learner per fold, which learns from the credit of all other folds. The student is taught with their means:

    taught = sum_j share_j policy_j,    policies: w^s, pi^s, rho^3, normalised;   s = sharpness
    share  = softmax(z),    z_j <- max(z_j + rate * factor_j * credit_j - largest, -4),    factor = 1, 1, release

where credit_j is the mean of ``sum_k policy_bk r_bk`` with the learner that has not learned from the fold of r. The start was fitted on
the labels of all folds, and so was w in the held policy; only the free policy is judged entirely on other labels. ``largest`` is the
largest of the new values, so that the best policy has z = 0. At first, z = 0, 0, -4. This is exponentiated gradient (Kivinen and Warmuth
1997) between three policies.

Without folds, the free policy is judged by labels that it has learned from. With few labels, its credit is then far too high. The
idea is that of cross-fitting (Chernozhukov et al. 2018, arXiv 1608.00060): what is fitted on some examples is used on others. The method is
our own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.credit_policies import SEARCH_SPACE, CreditPolicies, check_options
from agents.credit_stack import CreditStack
from agents.entropy import normalized_entropy
from agents.saving import SavedAgent
from kd_env import spec
from kd_env.envs.actions import action_of_weights
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, SearchSpace, Transition
from kd_env.types import Observation

MIN_LOG_SHARE = -4.0


class CrossfitCredit(SavedAgent):
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward labels"
    learns_from = "reward labels, then credit of every teacher"
    paper = ""
    any_student = True
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "reward": "dev_improvement",
        "credit": "first_order(folds=4)",
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
        sharpness: float = 1.0,
    ) -> None:
        """Fit the start.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the start and of the residuals.
            learning_rate: of Adam.
            hold: weight of the held policy's KL to the start, in units of normalised credit.
            release: factor of the free policy's credit when the shares change. With 0, it takes over only where the others lose.
            rate: step of the logarithms of the shares; 0 keeps the first shares.
            floor: weight that all teachers share equally, whatever the policies say.
            sharpness: start and held policy teach, and earn credit for their shares, with weights raised to this power and normalised.
        """
        check_options("crossfit_credit", context, learning_rate, hold, release, rate, floor)
        spec.numbers("crossfit_credit", least=0, sharpness=sharpness)
        self.context, self.rate, self.floor = context, rate, floor
        self.credit_factors = np.array([1.0, 1.0, release])
        self.options = {
            "seed": seed,
            "learning_rate": learning_rate,
            "hold": hold,
            "release": release,
            "rate": rate,
            "floor": floor,
            "sharpness": sharpness,
        }
        self.policies = CreditPolicies(context, seed, learning_rate, hold, context.credit_folds, sharpness)
        self.log_shares = np.array([0.0, 0.0, MIN_LOG_SHARE])

    @property
    def shares(self) -> np.ndarray:
        """Shares of the start, of the held policy and of the free policy, ``[3]``."""
        shares: np.ndarray = np.exp(self.log_shares - np.logaddexp.reduce(self.log_shares))
        return shares

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions. They depend on the mini-batch about to be taught, and not on the observation."""
        self.proposal = self.policies.propose(self.context.batch())
        self.proposed = self.proposal.policies
        return action_of_weights(self.mixed())

    def weigh(self, batch: PolicyBatch) -> np.ndarray:
        """Return the weights of the teachers for a mini-batch ``[n, K]``, also for one of another student."""
        return self._mixed(self.policies.propose(batch).policies)

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the weights that :meth:`act` returned last, ``[num_envs]``."""
        return normalized_entropy(self.mixed())

    def update(self, transition: Transition) -> None:
        """Learn from the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = torch.from_numpy(transition.info["credit"]).float()  # [n, K]
        left_out = self.compare(credit, int(transition.info["credit_fold"][0]))
        self.policies.learn(self.proposal, credit, left_out)

    def compare(self, credit: Tensor, fold: int) -> int | None:
        """Change the shares by the credit ``[n, K]`` of the three policies. Return the fold whose learners are left out of the step."""
        fold %= self.policies.num_folds  # a user's own credit may have folds that are not known here
        unseen = self.proposed[:, fold]  # [3, n, K]; the learners of a fold have not learned from it
        earned = (unseen * credit).sum(2).mean(1).double().numpy()  # [3]
        log_shares = self.log_shares + self.rate * self.credit_factors * earned
        self.log_shares = np.maximum(log_shares - log_shares.max(), MIN_LOG_SHARE)
        return fold if self.policies.num_folds > 1 else None

    def mixed(self) -> np.ndarray:
        """Return the weights ``[n, K]`` for the proposed ones, ``[3, folds, n, K]``."""
        return self._mixed(self.proposed)

    def _mixed(self, proposed: Tensor) -> np.ndarray:
        policy = np.tensordot(self.shares, proposed.mean(1).numpy(), 1)  # [n, K]
        weights: np.ndarray = ((1.0 - self.floor) * policy + self.floor / policy.shape[1]).astype(np.float32)
        return weights

    def state(self) -> dict[str, Any]:
        """Return start, learners and shares."""
        return {**self.policies.state(), "log_shares": self.log_shares.tolist(), "folds": self.policies.num_folds}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        num_folds = self.policies.num_folds
        if state["folds"] != num_folds:
            raise InputError(
                f"crossfit_credit: it was saved with {state['folds']} folds of credit, and this environment has {num_folds}; "
                "use the same credit=...(folds=...) and as many reward labels"
            )
        self.policies.load_state(state)
        self.log_shares = np.array(state["log_shares"])
