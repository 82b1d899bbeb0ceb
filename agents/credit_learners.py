"""Learn weights of the teachers from the credit of each of them: several policies in one batched network.

In: teachers' outputs, log-weights to stay near, and credit. Out: log-weights.

Used by :mod:`agents.held_credit` and :mod:`agents.crossfit_credit`. It reads the teachers' outputs, and not the student's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from baselines.gating import GatingNetwork, standardise
from baselines.scorer import NUM_COLUMNS, Scorer
from baselines.stacking import Instances

LARGEST_NORM = 1.0
"""Norm to which the gradient of each policy is clipped."""


class Residuals(nn.Module):
    """N networks of the same form, each a gating network plus a scorer, in one batched pass. All return 0 at first.

    Logits and gradients are those of N separate networks.
    """

    columns_mean: Tensor
    columns_scale: Tensor
    outputs_mean: Tensor
    outputs_scale: Tensor

    def __init__(self, instances: Instances, order: Sequence[int]) -> None:
        """Draw the networks, standardised by ``instances``. Position i of the batch gets the network that was drawn as ``order[i]``."""
        super().__init__()
        num_inputs, num_teachers = instances.outputs.shape[1], instances.columns.shape[1]
        drawn = [(GatingNetwork(num_inputs, num_teachers), Scorer(num_teachers)) for _ in order]
        gates, scorers = zip(*(drawn[number] for number in order), strict=True)
        standardise(gates[0], instances.outputs)
        scorers[0].standardise(instances.columns)
        self.register_buffer("outputs_mean", gates[0].mean)
        self.register_buffer("outputs_scale", gates[0].scale)
        self.register_buffer("columns_mean", scorers[0].mean)
        self.register_buffer("columns_scale", scorers[0].scale)

        def stacked(networks: Sequence[nn.Module], name: str) -> nn.Parameter:
            return nn.Parameter(torch.stack([network.get_parameter(name).detach() for network in networks]))

        self.gate_weight, self.gate_bias = stacked(gates, "body.0.weight"), stacked(gates, "body.0.bias")
        self.gate_output, self.gate_output_bias = stacked(gates, "body.2.weight"), stacked(gates, "body.2.bias")
        nn.init.zeros_(self.gate_output)
        nn.init.zeros_(self.gate_output_bias)
        self.bias, self.slope = stacked(scorers, "bias"), stacked(scorers, "slope")
        self.linear = stacked(scorers, "linear.weight")
        self.hidden, self.hidden_bias = stacked(scorers, "hidden.weight"), stacked(scorers, "hidden.bias")
        self.output = stacked(scorers, "output.weight")

    def forward(self, instances: Instances) -> Tensor:
        """Return the logits of all networks, ``[N, n, K]``."""
        return self._gates(instances.outputs) + self._scorers(instances.columns)

    def _gates(self, outputs: Tensor) -> Tensor:
        inputs = ((outputs - self.outputs_mean) / self.outputs_scale).expand(len(self.gate_weight), -1, -1)
        hidden = torch.baddbmm(self.gate_bias[:, None], inputs, self.gate_weight.mT).relu()
        return torch.baddbmm(self.gate_output_bias[:, None], hidden, self.gate_output.mT)

    def _scorers(self, columns: Tensor) -> Tensor:
        columns = (columns - self.columns_mean) / self.columns_scale  # [n, K, 9]
        inputs = columns.reshape(-1, NUM_COLUMNS).expand(len(self.hidden), -1, -1)
        hidden = torch.baddbmm(self.hidden_bias[:, None], inputs, self.hidden.mT).tanh()
        if hidden.requires_grad:
            hidden.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]  # else its sums round differently
        shared = torch.bmm(self.linear, inputs.mT) + torch.bmm(self.output, hidden.mT)  # [N, 1, n * K]
        return shared.view(-1, *columns.shape[:2]) + self.bias[:, None] + self.slope[:, None] * columns[:, :, 0]


class CreditLearners:
    """P policies ``softmax(log prior + residual)`` that learn from credit, with a KL to their priors. Each has F independent learners."""

    def __init__(self, instances: Instances, learning_rate: float, holds: Sequence[float], folds: int = 1) -> None:
        """Make the residuals, standardised by ``instances``.

        Args:
            instances: examples without labels.
            learning_rate: of Adam.
            holds: weight of the KL of each policy, in units of normalised credit.
            folds: number of learners F of each policy.
        """
        self.num_folds, num_policies = folds, len(holds)
        self.residuals = Residuals(instances, [policy * folds + fold for fold in range(folds) for policy in range(num_policies)])
        self.hold = torch.tensor(list(holds))[:, None, None]  # [P, 1, 1]
        parts = [torch.split(parameter.detach(), num_policies) for parameter in self.residuals.parameters()]
        self._parameters_of_fold = list(zip(*parts, strict=True))  # views: steps on them move the residuals
        self.optimizer = torch.optim.Adam([part for fold in self._parameters_of_fold for part in fold], lr=learning_rate, foreach=True)

    def log_policies(self, instances: Instances, log_priors: Tensor) -> Tensor:
        """Return log-weights ``[F, P, n, K]`` for the logarithms of the priors ``[P, n, K]``."""
        log_policies: Tensor = (log_priors + self.residuals(instances).unflatten(0, (self.num_folds, -1))).log_softmax(3)
        return log_policies

    def learn(self, instances: Instances, log_priors: Tensor, credit: Tensor, left_out: int | None = None) -> None:
        """Take one step with ``credit [n, K]`` in all folds but ``left_out``."""
        log_policies = self.log_policies(instances, log_priors)
        value = (log_policies.exp() * (credit - self.hold * (log_policies - log_priors))).sum(3).mean(2)  # [F, P]
        parameters = list(self.residuals.parameters())
        gradients = torch.autograd.grad(-value.sum(), parameters)
        norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients], 1)  # [F * P, parameters]
        factor = (LARGEST_NORM / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
        for number, gradient in enumerate(gradients):
            clipped = gradient * factor.view(-1, *[1] * (gradient.ndim - 1))
            for fold, part in enumerate(torch.split(clipped, len(self.hold))):
                self._parameters_of_fold[fold][number].grad = None if fold == left_out else part
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return residuals and optimizer."""
        return {"residuals": self.residuals.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.residuals.load_state_dict(state["residuals"])
        self.optimizer.load_state_dict(state["optimizer"])
