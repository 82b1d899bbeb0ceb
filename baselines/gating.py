"""A gating network over teachers, fitted by supervision: it predicts from the K teachers' outputs which of them is right.

In: the teachers' logits, optionally their features, and labels of the reward split. Out: a small network, ``[n, inputs]`` -> ``[n, K]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kd_env.policies import PolicyContext

LOG_FLOOR = -10.0


def gating_inputs(teacher_logits: Tensor, teacher_features: Sequence[Tensor] = ()) -> Tensor:
    """Return log-probabilities of ``[n, K, C]``, at least -10, and the teachers' features, side by side ``[n, inputs]``."""
    return torch.cat([teacher_logits.log_softmax(2).clamp_min(LOG_FLOOR).flatten(1), *teacher_features], 1)


class GatingNetwork(nn.Module):
    """Standardises its inputs; 64 ReLU units, K outputs, whose softmax is a distribution over teachers."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_inputs: int, num_teachers: int, hidden: int = 64) -> None:
        """Make the layers; inputs are not scaled until :func:`standardise` sets their mean and scale."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("scale", torch.ones(num_inputs))
        self.body = nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Linear(hidden, num_teachers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, ``[n, inputs]`` -> ``[n, K]``."""
        logits: Tensor = self.body((inputs - self.mean) / self.scale)
        return logits


def standardise(gate: GatingNetwork, inputs: Tensor) -> None:
    """Set the gating network's mean and scale from ``inputs [n, inputs]``; reads no labels."""
    gate.mean.copy_(inputs.mean(0))
    gate.scale.copy_(inputs.std(0, correction=0) + 1e-3)


def fit(gate: GatingNetwork, inputs: Tensor, right: Tensor, steps: int = 400) -> None:
    """Fit the gating network in place to predict which teachers are right (``right [n, K]``, 0 or 1), by AdamW on the whole batch."""
    standardise(gate, inputs)
    optimizer = torch.optim.AdamW(gate.body.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(gate(inputs), right).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def fit_on_reward_split(gate: GatingNetwork, context: PolicyContext, teacher_features: bool) -> None:
    """Fit ``gate`` on the reward examples that have labels."""
    examples = context.reward_examples()
    right = examples.teacher_logits.argmax(2) == examples.known_labels()[:, None]
    fit(gate, gating_inputs(examples.teacher_logits, examples.teacher_features if teacher_features else ()), right.float())
