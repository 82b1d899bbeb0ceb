"""``amtml``: adaptive multi-teacher multi-level KD (AMTML-KD, Liu et al. 2020, arXiv 2103.04062): a gating network, and multi-group hints.

``w = softmax_k(u . (theta_k * f_S(x)))``: the student's features against a latent vector of each teacher, learned by the student's own
gradient. The student is taught by one integrated target, ``tau^2 KL(sum_k w_k p_k || q)``. The weighted sum of each teacher's KL exceeds
that by ``sum_k w_k KL(p_k || sum_j w_j p_j)``, which does not depend on the student but has a gradient on the gating
network; it is subtracted as the decision's penalty. ``target="each"`` keeps it.

Multi-group hints: the student's layers form K groups, and teacher k's last layer is the hint of group k (``layer(grouped=true)``); all
groups have equal weights.

``scale="matched"`` (ours): the strengths of the setting. ``scale="released"``: the released notebooks divide the response loss by C and
multiply it by 2 (beside ``kd_weight``), and add the penalty ``.1 (|u|^2 + |theta|^2)``. They also normalise the hints, which is
``knowledge=response,layer(grouped=true,normalized=true)``.

Deviations: ``u`` is drawn with variance 1/D; the release draws it with variance 1, with which the first softmax of a wide student is nearly
one-hot. The release teaches twice, first while the gating network learns and then with it fixed; here it learns throughout. Features are
the classifier's input, not a pooled map. The paper's angle loss, which the released hints leave out, is
``knowledge=response,layer(grouped=true),similarity(kind=angle)``; it is weighed by the gating network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from baselines.rule import WEIGHTS, BaseRule, auxiliary_output
from baselines.scale import Scale, check_scale
from kd_env import spec
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.types import Decision, ModelOutput

GATE_DECAY = 0.1
"""Factor of the squared norm of the gating network's parameters in the released loss."""


class Gate(nn.Module):
    """The gating network ``softmax_k(u . (theta_k * f_S))``."""

    def __init__(self, width: int, widths: Sequence[int], num_terms: int) -> None:
        """Draw ``u`` and ``theta`` for the student's ``width`` D and the K teachers' ``widths`` from torch's global generator."""
        super().__init__()
        self.u = nn.Parameter(torch.randn(width) * width**-0.5)  # [D]
        self.theta = nn.Parameter(torch.randn(len(widths), width))  # [K, D]

    def forward(self, output: ModelOutput) -> Tensor:
        """Return the weights of the teachers, and in the last column the squared norm ``|u|^2 + |theta|^2``, ``[B, K + 1]``."""
        weights = (output.features @ (self.u * self.theta).T).softmax(-1)
        norm = self.u.square().sum() + self.theta.square().sum()
        return torch.cat([weights, norm.expand(len(weights), 1)], 1)


class AMTML(BaseRule):
    """Reads the student's gradient, by which the gating network learns."""

    access = "gradient"
    paper = "Liu et al. 2020, arXiv 2103.04062"
    env_options = {
        **WEIGHTS,
        "knowledge": "response,layer(grouped=true)",
        "auxiliary_module": "baselines.amtml:Gate",
    }
    search_space: SearchSpace = {
        "target": Choice(("integrated", "each")),
        "knowledge": Choice(("response,layer(grouped=true)", "response,layer(grouped=true,strength=0.01)")),
    }

    def __init__(self, context: PolicyContext, seed: int = 0, target: str = "integrated", scale: Scale = "matched") -> None:
        """Check ``target``, ``integrated`` or ``each``, and ``scale``, ``matched`` or ``released``."""
        super().__init__(context, seed)
        spec.one_of("amtml", "integrated", "each", target=target)
        check_scale(context, "amtml", scale)
        self.target = target
        self.factor, self.decay = (2.0 / context.num_classes, GATE_DECAY) if scale == "released" else (1.0, 0.0)

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the decision: the gating network weighs all knowledge types except hints."""
        (weights, norm), terms = auxiliary_output(batch, self).tensor_split([-1], 1), self.context.terms
        equal = torch.full_like(weights, 1.0 / weights.shape[1]).detach()
        factors = {"response": self.factor} if "response" in terms else {}
        decision = self.context.decision({name: equal if terms[name].knowledge.projector else weights for name in terms}, factors)
        if self.decay:
            decision = replace(decision, penalty=self.decay * norm[:, 0])
        if self.target == "each" or "response" not in terms:
            return decision
        temperature = self.context.settings.distillation.temperature
        excess = -decision.strengths["response"] * temperature**2 * disagreement(weights, (batch.teacher_logits / temperature).softmax(2))
        excess = excess * self.context.after_epochs(batch, terms["response"].skip_epochs).to(excess)  # there is nothing to exceed before
        return replace(decision, penalty=excess if decision.penalty is None else decision.penalty + excess)


def disagreement(weights: Tensor, probabilities: Tensor) -> Tensor:
    """Return ``sum_k w_k KL(p_k || sum_j w_j p_j)``, ``[B, K]``, ``[B, K, C]`` -> ``[B]``; it and its gradient are finite also at p = 0."""
    tiny = torch.finfo(weights.dtype).tiny
    mixture = (weights[..., None] * probabilities).sum(1)  # [B, C]
    entropy: Tensor = torch.special.entr(probabilities).sum(2)  # [B, K]
    return -(mixture * mixture.clamp_min(tiny).log()).sum(1) - (weights * entropy).sum(1)
