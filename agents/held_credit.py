"""``held_credit``: starts from the stacking of the teachers, learns from credit near that start, and leaves it if credit says so.

The start w is fitted by supervision on the reward labels (:mod:`baselines.stacking`). Two policies then learn from the credit of
every teacher of every instance, as :mod:`agents.gradient_credit` does. The held policy stays near the start, the free one begins uniform:

    held:  J = mean_b [ sum_k pi_bk r_bk - hold * KL(pi_b || w_b) ],     pi = softmax(log w + residual)
    free:  J = mean_b [ sum_k rho_bk r_bk - prior * KL(rho_b || 1/K) ],  rho = softmax(residual)

The student is taught with ``trust * pi + (1 - trust) * softmax(sharpness * log rho)``. Trust is close to 1 at first. At every step its
log-odds grow by ``rate * (credit of the held policy - credit of the free policy)``, between -4 and 4: exponentiated gradient (Kivinen and
Warmuth 1997) between two policies. So the start is kept as long as it earns as much as credit alone can earn; where the reward labels
mislead about teaching value, or the teachers change, credit alone takes over.

A policy that learns from the credit of some labels earns more credit on them than on others. So credit is measured on two folds of the
reward labels in turn (``credit_folds=2``), and the free policy is judged by copies of it, one per fold, that learn from the credit of the
other folds and are judged on their own: cross-fitting (Chernozhukov et al. 2018, arXiv 1608.00060).

Credit is first-order, of a held-out loss with negative label smoothing, and normalised within the instance. Residuals are 0 at first. They
read the teachers' outputs, and not the student's state. The method is our own.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from agents import saving
from agents.entropy import normalized_entropy
from baselines.gate import Gate, standardise
from baselines.scorer import Scorer
from baselines.stacking import Instances, Stack
from kd_env import spec
from kd_env.envs.actions import from_weights
from kd_env.errors import InputError
from kd_env.policies import PolicyContext, Transition
from kd_env.randomness import seeded
from kd_env.types import Observation

LEAST_WEIGHT = 1e-4
MOST_LOG_ODDS = 4.0
PRIOR = 0.1
SHARPNESS = 3.0


class Residual(nn.Module):
    """A gate plus a scorer, 0 at first."""

    def __init__(self, instances: Instances) -> None:
        """Make both, standardised by ``instances``."""
        super().__init__()
        num_teachers = instances.columns.shape[1]
        self.gate, self.scorer = Gate(instances.outputs.shape[1], num_teachers), Scorer(num_teachers)
        standardise(self.gate, instances.outputs)
        self.scorer.standardise(instances.columns)
        for parameter in self.gate.body[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, instances: Instances) -> Tensor:
        """Return logits, ``[n, K]``."""
        logits: Tensor = self.gate(instances.outputs) + self.scorer(instances.columns)
        return logits


class CreditLearner:
    """A policy ``softmax(log prior + residual)`` that learns from credit, with a KL to its prior."""

    def __init__(self, instances: Instances, learning_rate: float, hold: float) -> None:
        """Make the residual; ``hold`` is the weight of the KL, in units of normalised credit."""
        self.residual, self.hold = Residual(instances), hold
        self.optimizer = torch.optim.Adam(self.residual.parameters(), lr=learning_rate)

    def log_policy(self, instances: Instances, log_prior: Tensor) -> Tensor:
        """Return log-weights ``[n, K]`` for ``log_prior [n, K]``."""
        log_policy: Tensor = (log_prior + self.residual(instances)).log_softmax(1)
        return log_policy

    def learn(self, instances: Instances, log_prior: Tensor, credit: Tensor) -> None:
        """Take one step with ``credit [n, K]``."""
        log_policy = self.log_policy(instances, log_prior)
        value = (log_policy.exp() * (credit - self.hold * (log_policy - log_prior))).sum(1).mean()
        self.optimizer.zero_grad()
        (-value).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.residual.parameters(), 1.0)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return residual and optimizer."""
        return {"residual": self.residual.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.residual.load_state_dict(state["residual"])
        self.optimizer.load_state_dict(state["optimizer"])


class HeldCredit:
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward labels"
    learns_from = "reward labels, then credit of every teacher"
    paper = ""
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "reward": "dev_improvement",
        "credit": "first_order(smoothing=-0.3)",
        "credit_folds": 2,
    }

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float = 5e-4,
        hold: float = 1.0,
        rate: float = 0.3,
        floor: float = 0.01,
    ) -> None:
        """Fit the start.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the start and of the residuals.
            learning_rate: of Adam.
            hold: weight of the held policy's KL to the start, in units of normalised credit.
            rate: step of the log-odds of trust; 0 for a start that is never left.
            floor: weight that all teachers share equally, whatever the policies say.
        """
        spec.numbers("held_credit", least=0, hold=hold, rate=rate)
        spec.numbers("held_credit", above=0, learning_rate=learning_rate)
        spec.numbers("held_credit", least=0, most=1, floor=floor)
        if context.settings.reward.credit == "shared":
            raise InputError("policy held_credit learns from credit; use credit=first_order, head or counterfactual")
        num_folds = context.settings.reward.credit_folds
        if rate and num_folds < 2:
            raise InputError(
                f"credit_folds={num_folds}: policy held_credit judges itself on labels that it did not learn from; use at least 2"
            )
        self.context, self.rate, self.floor = context, rate, floor
        self.options = {"seed": seed, "learning_rate": learning_rate, "hold": hold, "rate": rate, "floor": floor}
        self.start = Stack(context.reward_examples(), seed)
        seen = context.reward_outputs()
        instances = Instances.of(seen.teacher_logits, seen.teacher_features)
        with seeded(seed):
            self.held = CreditLearner(instances, learning_rate, hold)
            self.free = CreditLearner(instances, learning_rate, PRIOR)
            self.judged = [CreditLearner(instances, learning_rate, PRIOR) for _ in range(num_folds)]  # one does not learn from one fold
        self.log_odds = MOST_LOG_ODDS

    @property
    def trust(self) -> float:
        """Weight of the held policy; 1 with ``rate=0``."""
        return 1.0 / (1.0 + math.exp(-self.log_odds)) if self.rate else 1.0

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions. They depend on the mini-batch about to be taught, and not on the observation."""
        batch = self.context.batch()
        self._instances = Instances.of(batch.teacher_logits, batch.teacher_features)
        self._log_start = self.start(self._instances).clamp_min(LEAST_WEIGHT).log().log_softmax(1)
        self._log_uniform = torch.zeros_like(self._log_start).log_softmax(1)
        return from_weights(self._taught())

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the present weights for the mini-batch that :meth:`act` saw last, ``[num_envs]``."""
        return normalized_entropy(self._taught())

    def update(self, transition: Transition) -> None:
        """Learn from the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = torch.from_numpy(transition.info["credit"]).float()  # [n, K]
        if self.rate:
            fold = int(transition.info["credit_fold"][0])
            held, free = ((policy * credit).sum(1).mean().item() for policy in (self._held(), self._free(self.judged[fold])))
            self.log_odds = min(max(self.log_odds + self.rate * (held - free), -MOST_LOG_ODDS), MOST_LOG_ODDS)
            for learner in (self.free, *self.judged[:fold], *self.judged[fold + 1 :]):
                learner.learn(self._instances, self._log_uniform, credit)
        self.held.learn(self._instances, self._log_start, credit)

    @torch.no_grad()
    def _held(self) -> Tensor:
        return self.held.log_policy(self._instances, self._log_start).exp()  # [n, K]

    @torch.no_grad()
    def _free(self, learner: CreditLearner) -> Tensor:
        return (SHARPNESS * learner.log_policy(self._instances, self._log_uniform)).softmax(1)  # [n, K]

    def _taught(self) -> np.ndarray:
        policy = self.trust * self._held() + (1.0 - self.trust) * self._free(self.free)
        weights: np.ndarray = ((1.0 - self.floor) * policy + self.floor / policy.shape[1]).numpy()
        return weights

    def state(self) -> dict[str, Any]:
        """Return start, policies and trust."""
        learners = {name: learner.state() for name, learner in self._learners().items()}
        return {"start": self.start.state_dict(), "log_odds": self.log_odds, **learners}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.start.load_state_dict(state["start"])
        self.log_odds = state["log_odds"]
        for name, learner in self._learners().items():
            learner.load_state(state[name])

    def _learners(self) -> dict[str, CreditLearner]:
        return {"held": self.held, "free": self.free, **{f"judged.{fold}": learner for fold, learner in enumerate(self.judged)}}

    def save(self, path: str) -> None:
        """Write the agent to a file."""
        saving.save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent."""
        return saving.load(path, cls, context)
