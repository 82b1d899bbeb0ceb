"""Learn weights of the teachers from the credit of each of them.

In: teachers' outputs, log-weights to stay near, and credit. Out: log-weights.

Used by :mod:`agents.held_credit` and :mod:`agents.crossfit_credit`. It reads the teachers' outputs, and not the student's state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.gate import Gate, standardise
from baselines.scorer import Scorer
from baselines.stacking import Instances


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
