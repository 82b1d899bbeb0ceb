"""``crossfit_credit``: learns from credit, and trusts what it learned as far as credit of other labels confirms it.

Three policies weigh the teachers of every instance:

    start:  w,                               fitted by supervision on the reward labels (:mod:`baselines.stacking`)
    held:   pi = softmax(log w + residual),  J = mean_b [ sum_k pi_bk r_bk - hold * KL(pi_b || w_b) ]
    free:   rho = softmax(residual),         J = mean_b [ sum_k rho_bk r_bk - prior * KL(rho_b || 1/K) ]

The reward labels are divided into folds, and the credit r_bk of an update comes from the labels of one fold, each in turn. The held and
the free policy have one learner per fold, which learns from the credit of all other folds. The student is taught with their means:

    taught = sum_j share_j policy_j,    policies: w, pi, softmax(sharpness * log rho)
    share  = softmax(z),    z_j <- max(z_j + rate * price_j * credit_j - largest, -4),    price = 1, 1, release

where credit_j is the mean of ``sum_k policy_bk r_bk`` with the learner that has not learned from the fold of r. The start was fitted on
the labels of all folds, and so was w in the held policy; only the free policy is judged entirely on other labels. ``largest`` is the
largest of the new values, so that the best policy has z = 0. At first, z = 0, 0, -4. This is exponentiated gradient (Kivinen and Warmuth
1997) between three policies.

Without folds, the free policy is judged by labels that it has learned from. With few labels, its credit is then far too high. After
cross-fitting (Chernozhukov et al. 2018, arXiv 1608.00060), which estimates nuisance parameters on other examples than those that use them.
The method is our own.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from agents import saving
from agents.credit_learners import CreditLearners
from agents.entropy import normalized_entropy
from baselines.stacking import Instances, Stack
from kd_env import spec
from kd_env.envs.actions import from_weights
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace, Transition
from kd_env.randomness import seeded
from kd_env.types import Observation

MIN_WEIGHT = 1e-4
MIN_LOG_SHARE = -4.0
PRIOR = 0.1
SHARPNESS = 3.0


class Proposal(NamedTuple):
    """What the policies propose for a mini-batch."""

    instances: Instances
    log_priors: Tensor  # [2, n, K]: of the held and of the free policy
    policies: Tensor  # [3, folds, n, K]: weights of the start, of the held and of the free policy


class CrossfitCredit:
    """Learns while it teaches. The result is the student that the run trains."""

    name = "crossfit_credit"
    uses_folds = True
    access = "reward labels"
    learns_from = "reward labels, then credit of every teacher"
    paper = ""
    any_student = True
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "reward": "dev_improvement",
        "credit": "first_order(smoothing=-0.3,folds=4)",
    }
    search_space: SearchSpace = {
        "learning_rate": Range(1e-4, 5e-3, log=True),
        "hold": Range(0.1, 10.0, log=True),
        "release": Range(0.1, 0.9),
        "rate": Range(0.05, 1.0, log=True),
    }

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
            release: factor of the free policy's credit when the shares change. With 0, it takes over only where the others lose.
            rate: step of the logarithms of the shares; 0 keeps the first shares.
            floor: weight that all teachers share equally, whatever the policies say.
        """
        spec.numbers(self.name, least=0, hold=hold, release=release, rate=rate)
        spec.numbers(self.name, above=0, learning_rate=learning_rate)
        spec.numbers(self.name, least=0, most=1, floor=floor)
        if context.settings.reward.credit == "shared":
            raise InputError(f"policy {self.name} learns from credit; use credit=first_order, difference, head or counterfactual")
        self.context, self.rate, self.floor = context, rate, floor
        self.prices = np.array([1.0, 1.0, release])
        self.options = {"seed": seed, "learning_rate": learning_rate, "hold": hold, "release": release, "rate": rate, "floor": floor}
        self.start = Stack(context.reward_examples(), seed)
        seen = context.reward_outputs()
        instances = Instances.of(seen.teacher_logits, seen.teacher_features)
        with seeded(seed):
            self.learners = CreditLearners(instances, learning_rate, (hold, PRIOR), context.credit_folds if self.uses_folds else 1)
        self.log_shares = np.array([0.0, 0.0, MIN_LOG_SHARE])

    @property
    def shares(self) -> np.ndarray:
        """Shares of the start, of the held policy and of the free policy, ``[3]``."""
        shares: np.ndarray = np.exp(self.log_shares - np.logaddexp.reduce(self.log_shares))
        return shares

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions. They depend on the mini-batch about to be taught, and not on the observation."""
        self._proposal = self._propose(self.context.batch())
        return from_weights(self._mixed(self._proposal))

    def weigh(self, batch: PolicyBatch) -> np.ndarray:
        """Return the weights of the teachers for a mini-batch ``[n, K]``, also for one of another student."""
        return self._mixed(self._propose(batch))

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the weights that :meth:`act` returned last, ``[num_envs]``."""
        return normalized_entropy(self._mixed(self._proposal))

    def update(self, transition: Transition) -> None:
        """Learn from the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = torch.from_numpy(transition.info["credit"]).float()  # [n, K]
        num_folds = len(self.learners.folds)
        fold = int(transition.info["credit_fold"][0]) % num_folds  # a user's own credit may have folds that are not known here
        instances, log_priors, policies = self._proposal
        unseen = policies[:, fold]  # [3, n, K]; the learners of a fold have not learned from it
        earned = (unseen * credit).sum(2).mean(1).double().numpy()  # [3]
        log_shares = self.log_shares + self.rate * self.prices * earned
        self.log_shares = np.maximum(log_shares - log_shares.max(), MIN_LOG_SHARE)
        self.learners.learn(instances, log_priors, credit, left_out=fold if num_folds > 1 else None)

    @torch.no_grad()
    def _propose(self, batch: PolicyBatch) -> Proposal:
        """Return the weights of the start, of the held policy and of the sharpened free policy for a mini-batch, by fold."""
        instances = Instances.of(batch.teacher_logits, batch.teacher_features)
        log_start = self.start(instances).clamp_min(MIN_WEIGHT).log().log_softmax(1)
        return self._proposed(instances, torch.stack([log_start, torch.zeros_like(log_start).log_softmax(1)]))

    @torch.no_grad()
    def _proposed(self, instances: Instances, log_priors: Tensor) -> Proposal:
        log_held, log_free = self.learners.log_policies(instances, log_priors).unbind(1)  # [folds, n, K] each
        held, free = log_held.exp(), (SHARPNESS * log_free).softmax(2)
        return Proposal(instances, log_priors, torch.stack([log_priors[0].exp().expand_as(held), held, free]))

    def _mixed(self, proposal: Proposal) -> np.ndarray:
        policy = np.tensordot(self.shares, proposal.policies.mean(1).numpy(), 1)  # [n, K]
        weights: np.ndarray = ((1.0 - self.floor) * policy + self.floor / policy.shape[1]).astype(np.float32)
        return weights

    def state(self) -> dict[str, Any]:
        """Return start, learners and shares."""
        learners = {"learners": self.learners.state(), "folds": len(self.learners.folds)}
        return {"start": self.start.state_dict(), "log_shares": self.log_shares.tolist(), **learners}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        num_folds = len(self.learners.folds)
        if state["folds"] != num_folds:
            raise InputError(
                f"crossfit_credit: it was saved with {state['folds']} folds of credit, and this environment has {num_folds}; "
                "use the same credit=...(folds=...) and as many reward labels"
            )
        self.start.load_state_dict(state["start"])
        self.log_shares = np.array(state["log_shares"])
        self.learners.load_state(state["learners"])

    def save(self, path: str) -> None:
        """Write the agent to a file."""
        saving.save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent."""
        return saving.load(path, cls, context)
