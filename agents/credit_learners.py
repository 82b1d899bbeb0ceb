"""Learn weights of the teachers from the credit of each of them: several policies, taught in one batched pass.

In: teachers' outputs, log-weights to stay near, and credit. Out: log-weights.

Used by :mod:`agents.credit_policies`. It reads the teachers' outputs, and not the student's state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents.network_stack import clipped_each
from baselines.gating import GatingNetwork, standardise
from baselines.scorer import NUM_COLUMNS, Scorer
from baselines.stacking import Instances

MAX_NORM = 1.0
"""Norm to which the gradient of each learner is clipped."""
NAMES = {
    "gate_hidden": "0.body.0.weight",
    "gate_hidden_bias": "0.body.0.bias",
    "gate_output": "0.body.2.weight",
    "gate_output_bias": "0.body.2.bias",
    "scorer_bias": "1.bias",
    "scorer_slope": "1.slope",
    "scorer_linear": "1.linear.weight",
    "scorer_hidden": "1.hidden.weight",
    "scorer_hidden_bias": "1.hidden.bias",
    "scorer_output": "1.output.weight",
}
"""Our names of the parameters of a gating network (0) and a scorer (1)."""


class CreditLearners(nn.Module):
    """P policies ``softmax(log prior + residual)`` that learn from credit, with a KL to their priors. Each has F independent learners.

    A residual is a gating network plus a scorer, 0 at first. Logits and gradients are those of F * P separate networks.
    """

    outputs_mean: Tensor
    outputs_scale: Tensor
    columns_mean: Tensor
    columns_scale: Tensor

    def __init__(self, instances: Instances, learning_rate: float, holds: Sequence[float], num_folds: int = 1) -> None:
        """Draw the residuals: all learners of the first policy, then those of the next.

        Args:
            instances: examples without labels, by which the inputs are standardised.
            learning_rate: of Adam.
            holds: weight of the KL of each of the P policies, in units of normalised credit.
            num_folds: number of learners F of each policy.
        """
        super().__init__()
        num_inputs, num_teachers = instances.outputs.shape[1], instances.columns.shape[1]
        learners = [nn.ModuleList([GatingNetwork(num_inputs, num_teachers), Scorer(num_teachers)]) for _ in range(len(holds) * num_folds)]
        gate, scorer = GatingNetwork(num_inputs, num_teachers), Scorer(num_teachers)
        standardise(gate, instances.outputs)
        scorer.standardise(instances.columns)
        self.register_buffer("outputs_mean", gate.mean)
        self.register_buffer("outputs_scale", gate.scale)
        self.register_buffer("columns_mean", scorer.mean)
        self.register_buffer("columns_scale", scorer.scale)
        self.holds = torch.tensor(list(holds))[:, None, None]  # [P, 1, 1]

        def stacked(fold: int) -> nn.ParameterDict:
            of_policies = learners[fold::num_folds]
            tensors = {name: torch.stack([learner.get_parameter(path).detach() for learner in of_policies]) for name, path in NAMES.items()}
            return nn.ParameterDict({name: torch.zeros_like(t) if name.startswith("gate_output") else t for name, t in tensors.items()})

        self.folds = nn.ModuleList([stacked(fold) for fold in range(num_folds)])  # parameters [P, ...] by name
        self._fold_parameters: dict[str, list[Tensor]] = {
            name: [fold.get_parameter(name) for fold in self.folds] for name in NAMES
        }  # a list of F for each name
        self.optimizer = torch.optim.Adam(self.folds.parameters(), lr=learning_rate, foreach=True)

    def log_policies(self, instances: Instances, log_priors: Tensor) -> Tensor:
        """Return log-weights ``[F, P, n, K]`` for the logarithms of the priors ``[P, n, K]``."""
        log_policies: Tensor = self(instances.outputs, instances.columns, log_priors)
        return log_policies

    def forward(self, outputs: Tensor, columns: Tensor, log_priors: Tensor) -> Tensor:
        """Return what :meth:`log_policies` returns for what it reads of the instances, ``[n, K * C]`` and ``[n, K, 9]``."""
        joined = {name: torch.cat([fold[name] for fold in self.folds]) for name in NAMES}  # type: ignore[index]
        return self._log_policies(joined, outputs, columns, log_priors)

    def value(self, log_policies: Tensor, log_priors: Tensor, credit: Tensor) -> Tensor:
        """Return what each policy maximises, ``[..., F, P]``; ``log_priors [..., P, n, K]``, ``credit [n, K]`` or ``[..., 1, 1, n, K]``."""
        gain = credit - self.holds * (log_policies - log_priors)
        return (log_policies.exp() * gain).sum(-1).mean(-1)

    def learn(self, instances: Instances, log_priors: Tensor, credit: Tensor, left_out: int | None = None) -> None:
        """Take one step with ``credit [n, K]`` in all folds but ``left_out``."""
        joined = self._joined()
        log_policies = self._log_policies(joined, instances.outputs, instances.columns, log_priors)
        gradients = torch.autograd.grad(-self.value(log_policies, log_priors, credit).sum(), list(joined.values()))
        for name, clipped in clipped_each(dict(zip(joined, gradients, strict=True)), MAX_NORM).items():
            for number, part in enumerate(torch.split(clipped, len(self.holds))):
                self._fold_parameters[name][number].grad = None if number == left_out else part
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return parameters and optimizer."""
        return {"parameters": self.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.load_state_dict(state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _joined(self) -> dict[str, Tensor]:
        """Return a copy of the parameters of all folds by name, ``[F * P, ...]``."""
        return {name: torch.cat(parameters).detach().requires_grad_() for name, parameters in self._fold_parameters.items()}

    def _log_policies(self, joined: Mapping[str, Tensor], outputs: Tensor, columns: Tensor, log_priors: Tensor) -> Tensor:
        residuals = self._gating(joined, outputs) + self._scorers(joined, columns)  # [F * P, n, K]
        log_policies: Tensor = (log_priors + residuals.view(len(self.folds), -1, *log_priors.shape[1:])).log_softmax(3)
        return log_policies

    def _gating(self, joined: Mapping[str, Tensor], outputs: Tensor) -> Tensor:
        inputs = ((outputs - self.outputs_mean) / self.outputs_scale).expand(len(joined["gate_hidden"]), -1, -1)
        hidden = torch.baddbmm(joined["gate_hidden_bias"][:, None], inputs, joined["gate_hidden"].mT).relu()
        return torch.baddbmm(joined["gate_output_bias"][:, None], hidden, joined["gate_output"].mT)

    def _scorers(self, joined: Mapping[str, Tensor], columns: Tensor) -> Tensor:
        columns = (columns - self.columns_mean) / self.columns_scale  # [n, K, 9]
        inputs = columns.reshape(-1, NUM_COLUMNS).expand(len(joined["scorer_hidden"]), -1, -1)
        hidden = torch.baddbmm(joined["scorer_hidden_bias"][:, None], inputs, joined["scorer_hidden"].mT).tanh()
        if hidden.requires_grad:
            hidden.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]  # else its sums round differently
        shared = torch.bmm(joined["scorer_linear"], inputs.mT) + torch.bmm(joined["scorer_output"], hidden.mT)  # [F * P, 1, n * K]
        scores = shared.view(-1, *columns.shape[:2]) + joined["scorer_bias"][:, None]
        return scores + joined["scorer_slope"][:, None] * columns[:, :, 0]
