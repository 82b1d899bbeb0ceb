"""``held_credit``: starts from the stacking of the teachers, and learns from credit while it is held near that start.

The start is fitted by supervision on the reward labels (:mod:`baselines.stacking`). A residual on its log-weights then learns from the
credit of every teacher of every instance, as :mod:`agents.gradient_credit` does:

    J = mean_b [ sum_k pi_bk r_bk - hold * KL(pi_b || start_b) ],    pi = softmax(log start + residual)

Weights of the start are at least 1e-4. By default, credit is first-order and normalised within the instance. The residual is 0 at first. It
reads the teachers' outputs, and not the student's state. Ours.
"""

from __future__ import annotations

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


class HeldCredit:
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward labels"
    learns_from = "reward labels, then credit of every teacher"
    paper = ""
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "reward": "dev_improvement",
        "credit": "first_order",
    }

    def __init__(self, context: PolicyContext, seed: int = 0, learning_rate: float = 5e-4, hold: float = 1.0, floor: float = 0.01) -> None:
        """Fit the start.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the start and of the residual.
            learning_rate: of Adam.
            hold: weight of the KL to the start, in units of normalised credit.
            floor: weight that all teachers share equally, whatever the policy says.
        """
        spec.numbers("held_credit", least=0, hold=hold)
        spec.numbers("held_credit", above=0, learning_rate=learning_rate)
        spec.numbers("held_credit", least=0, most=1, floor=floor)
        if context.settings.reward.credit == "shared":
            raise InputError("policy held_credit learns from credit; use credit=first_order, head or counterfactual")
        self.context, self.hold, self.floor = context, hold, floor
        self.options = {"seed": seed, "learning_rate": learning_rate, "hold": hold, "floor": floor}
        self.start = Stack(context.reward_examples(), seed)
        seen = context.reward_outputs()
        with seeded(seed):
            self.residual = Residual(Instances.of(seen.teacher_logits, seen.teacher_features))
        self.optimizer = torch.optim.Adam(self.residual.parameters(), lr=learning_rate)

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions. They depend on the mini-batch about to be taught, and not on the observation."""
        batch = self.context.batch()
        self._instances = Instances.of(batch.teacher_logits, batch.teacher_features)
        self._log_start = self.start(self._instances).clamp_min(LEAST_WEIGHT).log()
        return from_weights(self._taught())

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy over ln K of the present weights for the mini-batch that :meth:`act` saw last, ``[num_envs]``."""
        return normalized_entropy(self._taught())

    def update(self, transition: Transition) -> None:
        """Make one policy update with the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = torch.from_numpy(transition.info["credit"]).float()  # [n, K]
        log_policy = self._log_policy()
        policy = log_policy.exp()
        value = (policy * (credit - self.hold * (log_policy - self._log_start.log_softmax(1)))).sum(1).mean()
        self.optimizer.zero_grad()
        (-value).backward()
        nn.utils.clip_grad_norm_(self.residual.parameters(), 1.0)
        self.optimizer.step()

    def _log_policy(self) -> Tensor:
        log_policy: Tensor = (self._log_start + self.residual(self._instances)).log_softmax(1)
        return log_policy

    @torch.no_grad()
    def _taught(self) -> np.ndarray:
        policy = self._log_policy().exp()
        weights: np.ndarray = ((1.0 - self.floor) * policy + self.floor / policy.shape[1]).numpy()
        return weights

    def state(self) -> dict[str, Any]:
        """Return start, residual and optimizer."""
        return {"start": self.start.state_dict(), "residual": self.residual.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.start.load_state_dict(state["start"])
        self.residual.load_state_dict(state["residual"])
        self.optimizer.load_state_dict(state["optimizer"])

    def save(self, path: str) -> None:
        """Write the agent to a file."""
        saving.save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent."""
        return saving.load(path, cls, context)
