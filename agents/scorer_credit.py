"""``scorer_credit``: a policy that can be moved to another pool. It learns one scorer for all teachers from the credit of each of them.

    pi_k(x) = softmax_k(f(columns_k(x)))
    J = mean_b [ sum_k pi_bk r_bk - hold * KL(pi_b || pi0_b) ]

r_bk is the credit of teacher k for instance b, and pi0 the policy at the beginning of the episode: uniform for a new policy. With
``label_start`` a new policy begins with the scorer whose mixture of teachers predicts the reward labels best, see
:mod:`baselines.mixture`. The scorer (:mod:`agents.shared_scorer`) has no parameter that depends on the number of teachers or of classes,
and reads no features. So a saved policy can be used with another seed, student, pool, task and modality, with or without learning. Without
learning it reads no label of the new task. The method is our own.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.entropy import normalized_entropy
from agents.saving import SavedAgent
from agents.shared_scorer import PoolColumns, SharedScorer
from baselines.mixture import fit_mixture, log_likelihoods
from kd_env import spec
from kd_env.envs.actions import action_of_weights
from kd_env.errors import InputError
from kd_env.policies import PolicyContext, Transition
from kd_env.randomness import seeded
from kd_env.types import Observation

RIDGE = 1e-2


class ScorerCredit(SavedAgent):
    """Learns while it teaches. The result is the student that the run trains."""

    learns_from = "credit of every teacher"
    paper = ""
    any_pool = True
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "reward": "dev_improvement",
        "credit": "first_order(smoothing=-0.3)",
    }
    frozen_env_options: dict[str, Any] = {"credit": "shared", "reward_every": 0}

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float = 3e-3,
        hold: float = 0.1,
        floor: float = 0.01,
        label_start: bool = False,
    ) -> None:
        """Make the scorer.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the scorer's first weights.
            learning_rate: of Adam.
            hold: weight of the KL to the policy at the beginning of the episode, in units of normalised credit.
            floor: weight that all teachers share equally, whatever the policy says.
            label_start: whether a new policy is first fitted to the reward labels.
        """
        spec.numbers("scorer_credit", least=0, hold=hold)
        spec.numbers("scorer_credit", above=0, learning_rate=learning_rate)
        spec.numbers("scorer_credit", least=0, most=1, floor=floor)
        spec.one_of("scorer_credit", True, False, label_start=label_start)
        self.context, self.hold, self.floor, self.label_start = context, hold, floor, label_start
        self.options = {"seed": seed, "learning_rate": learning_rate, "hold": hold, "floor": floor, "label_start": label_start}
        self.columns = PoolColumns(context.reward_outputs().teacher_logits)
        with seeded(seed):
            self.scorer = SharedScorer()
        self.start = copy.deepcopy(self.scorer)
        self.optimizer = torch.optim.Adam(self.scorer.parameters(), lr=learning_rate)
        self.is_new = True

    @staticmethod
    def access_for(label_start: bool = False, **_options: object) -> str:
        """Return what it reads: with ``label_start`` also the labels of the reward split."""
        return "reward labels" if label_start else "reward gradient"

    def begin_episode(self, learning: bool) -> None:
        """Fit a new policy if it starts from labels; stay near the policy as it is now.

        Raises:
            InputError: it is to learn, and the setting pays no credit.
        """
        if learning and self.context.settings.reward.credit == "shared":
            raise InputError("policy scorer_credit learns from credit; use credit=first_order, difference, head or counterfactual")
        if self.is_new and learning and self.label_start:
            self._fit()
        self.is_new = False
        self.start = copy.deepcopy(self.scorer)

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions. They depend on the mini-batch about to be taught, and not on the observation."""
        self._read = self.columns(self.context.batch().teacher_logits.cpu())  # [n, K, 13]
        return action_of_weights(self._taught())

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the present weights for the mini-batch that :meth:`act` saw last, ``[num_envs]``."""
        return normalized_entropy(self._taught())

    def update(self, transition: Transition) -> None:
        """Take one step with the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = torch.from_numpy(transition.info["credit"]).float()  # [n, K]
        log_policy: Tensor = self.scorer(self._read)
        with torch.no_grad():
            log_start = self.start(self._read)
        value = (log_policy.exp() * (credit - self.hold * (log_policy - log_start))).sum(1).mean()
        self.optimizer.zero_grad()
        (-value).backward()
        nn.utils.clip_grad_norm_(self.scorer.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def _taught(self) -> np.ndarray:
        policy = self.scorer(self._read).exp()
        weights: np.ndarray = ((1.0 - self.floor) * policy + self.floor / policy.shape[1]).numpy()
        return weights

    def _fit(self) -> None:
        """Fit the scorer to the likelihood of the mixture on the reward labels."""
        examples = self.context.reward_examples()
        columns, log_likelihood = self.columns(examples.teacher_logits), log_likelihoods(examples.teacher_logits, examples.known_labels())
        fit_mixture(self.scorer.parameters(), lambda: self.scorer(columns), log_likelihood, RIDGE)

    def state(self) -> dict[str, Any]:
        """Return scorer, start and optimizer."""
        scorer, start = self.scorer.state_dict(), self.start.state_dict()
        return {"scorer": scorer, "start": start, "optimizer": self.optimizer.state_dict(), "is_new": self.is_new}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.scorer.load_state_dict(state["scorer"])
        self.start.load_state_dict(state["start"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.is_new = state["is_new"]
