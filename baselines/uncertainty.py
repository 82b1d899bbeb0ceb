"""``uncertainty``: the knowledge types weighed by their learned uncertainty (Kendall et al. 2018, arXiv 1705.07115).

``sum_j L_j / (2 sigma_j^2) + log sigma_j`` over the types j, among them the hard label where it is used. ``log sigma_j`` is
learned by the student's gradient and begins at 0. All teachers have equal weights.

If a loss goes to 0, so does its optimal ``sigma^2 = L``: its strength grows as ``1 / (2 L)``, and the total falls without bound. So
``log sigma`` is kept within ``bound``, smoothly (``bound tanh(s / bound)``), so that it can leave the bound again: a strength is at most
``exp(2 bound) / 2`` times the setting's.

Deviations: the bound. The paper's classification loss has ``1 / sigma^2`` and its regression loss half of that; here all types have the
half. Each L_j has the setting's strength, so at the start all have half of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.rule import WEIGHTS, BaseRule, auxiliary_output
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.types import Decision, ModelOutput


class LogSigma(nn.Module):
    """``log sigma`` of M types, and last of the label, whether or not that is used."""

    def __init__(self, width: int, widths: Sequence[int], num_terms: int, bound: float = 3.0) -> None:
        """Start at 0; ``num_terms`` is M."""
        super().__init__()
        spec.numbers("LogSigma", above=0, bound=bound)
        self.bound = bound
        self.free = nn.Parameter(torch.zeros(num_terms + 1))

    def forward(self, output: ModelOutput) -> Tensor:
        """Return ``log sigma``, the same for all examples, ``[B, M + 1]``."""
        return (self.bound * (self.free / self.bound).tanh()).expand(len(output.logits), -1)


class Uncertainty(BaseRule):
    """Reads the student's gradient, by which ``log sigma`` learns."""

    access = "gradient"
    paper = "Kendall et al. 2018, arXiv 1705.07115"
    env_options = {
        **WEIGHTS,
        "knowledge": "response,hint",
        "auxiliary_module": "baselines.uncertainty:LogSigma",
    }

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Check the knowledge types.

        Raises:
            InputError: a type has ``skip_epochs``: its sigma would fall while there is no loss to hold it.
        """
        super().__init__(context, seed)
        for name, term in context.terms.items():
            if term.skip_epochs:
                raise InputError(f"policy uncertainty: sigma learns from epoch 1; leave {name}(skip_epochs={term.skip_epochs}) out")

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the strengths, and the penalty that prevents them from falling to 0."""
        names = [*self.context.terms, *(["label"] if self.context.uses_hard_labels else [])]
        log_sigma = auxiliary_output(batch, self)[:, : len(names)]  # [B, M or M + 1]
        factors = dict(zip(names, (0.5 * (-2.0 * log_sigma).exp()).unbind(1), strict=True))
        equal = batch.teacher_logits.new_full((batch.num_rows, batch.num_teachers), 1.0 / batch.num_teachers)
        decision = self.context.decision(dict.fromkeys(self.context.terms, equal), factors)
        return Decision(decision.weights, decision.strengths, decision.temperature, penalty=log_sigma.sum(1))
