"""``pcl``: several heads on one trunk that teach each other, Peer Collaborative Learning (Wu & Gong 2021, arXiv 2006.04147).

    L = sum_i taught(q_i) + taught(e) + strength ramp(u) tau^2 sum_i (KL(e || q_i) + mean_(j != i) KL(q'_j || q_i))
    taught(q) = (1 - kd_weight) CE(y, q) + kd_weight mean_k tau^2 KL(p_k || q)

``q_1`` is the student's own head, which is kept; ``q_2`` to ``q_m`` are further heads on its features, ``e`` is a linear classifier of
the joined features of all heads, and ``q'_j`` is head j of the temporal mean of the whole network. After update u the mean is moved by
``phi' <- a phi' + (1 - a) phi`` with ``a = min(1 - 1 / (u + 1), decay)``. Of U updates, ``ramp(u) = exp(-5 (1 - min(u / (ramp_up U),
1))^2)``. Targets carry no gradient. ``kd_weight=0`` is the published loss, without teachers. Other knowledge types teach the first head.

The paper's abstract and introduction and notes of others on it could be read, not its formulas: the ramp and ``a`` are those of mean
teachers (Tarvainen & Valpola 2017, arXiv 1703.01780), and ``decay`` and ``ramp_up`` are options. Deviations: the paper's peers split
earlier, so that each has its own last stage of convolutions; here a further head is a hidden layer and a classifier on the student's
features. Its peers see differently augmented inputs; here all see the same. Means run in evaluation mode, with the student's running
statistics of BatchNorm. The paper has no teachers besides the peers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from baselines.rule import WEIGHTS, BaseRule, auxiliary_output, uniform
from kd_env import spec
from kd_env.errors import InputError
from kd_env.knowledge import LossContext, label
from kd_env.knowledge.response import per_teacher, tempered_kl
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.types import Decision, ModelOutput


class Heads(nn.Module):
    """Further heads on the student's features, and a classifier of the features of all heads."""

    def __init__(self, width: int, widths: Sequence[int], num_terms: int, num_classes: int, heads: int = 3) -> None:
        """Draw the weights of ``heads - 1`` further heads from torch's global generator.

        Raises:
            InputError: there are fewer than two heads.
        """
        super().__init__()
        spec.numbers("auxiliary_module baselines.pcl:Heads", least=2, most=64, whole=True, heads=heads)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(heads - 1))
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(heads - 1))
        self.ensemble = nn.Linear(heads * width, num_classes)

    def forward(self, output: ModelOutput) -> Tensor:
        """Return the logits of heads 2 to m and of the ensemble, ``[B, m, C]``."""
        features = [relu(layer(output.features)) for layer in self.hidden]
        logits = [classifier(each) for classifier, each in zip(self.classifiers, features, strict=True)]
        return torch.stack([*logits, self.ensemble(torch.cat([output.features, *features], 1))], 1)


class PCL(BaseRule):
    """Reads the student's gradient, by which the further heads learn, and its weights, whose mean it keeps."""

    access = "gradient"
    supports_population = False
    paper = "Wu & Gong 2021, arXiv 2006.04147"
    env_options = {**WEIGHTS, "auxiliary_module": "baselines.pcl:Heads"}
    search_space: SearchSpace = {"strength": Choice((0.3, 1.0, 3.0))}

    def __init__(self, context: PolicyContext, seed: int = 0, strength: float = 1.0, ramp_up: float = 0.3, decay: float = 0.999) -> None:
        """Check the options: weight of the peer terms, part of the budget in which it grows, and the largest decay of the mean.

        Raises:
            InputError: an option is out of its range, neither labels nor responses are used, or there are several students.
        """
        super().__init__(context, seed)
        spec.numbers("pcl", least=0, strength=strength)
        spec.numbers("pcl", least=0, most=1, ramp_up=ramp_up, decay=decay)
        if not context.uses_hard_labels and "response" not in context.terms:
            raise InputError("policy pcl: the heads learn from labels or responses; add response to knowledge, or --set kd_weight=0.5")
        if context.num_students > 1:
            raise InputError("policy pcl keeps the mean of one student; leave out num_students")
        for name, term in context.terms.items():
            if term.skip_epochs:
                raise InputError(f"policy pcl: its heads learn from the first epoch on; leave {name}(skip_epochs={term.skip_epochs}) out")
        self.strength, self.ramp_up, self.decay = strength, ramp_up, decay
        self.mean: list[Tensor] = []  # parameters of the temporal mean
        self._decided = -1  # the last update that a decision was made for

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return weights of 1/K for the teachers, and the loss of the heads as the penalty."""
        self._update_mean(int(batch.update[0]))
        others = auxiliary_output(batch, self)  # [B, m, C]
        if others.ndim != 3 or others.shape[1] < 2 or others.shape[2] != batch.teacher_logits.shape[-1]:
            raise InputError("policy pcl: auxiliary_module returns no logits of heads; use the default, or baselines.pcl:Heads(heads=3)")
        logits = torch.cat([batch.student_output.logits[:, None], others], 1)  # [B, m + 1, C], the ensemble last
        with torch.no_grad(), self.context.student.evaluating():
            output = self.context.student.forward_at(self.mean, self.context.student.batch_inputs())
        assert output.auxiliary is not None
        means = torch.cat([output.logits[:, None], output.auxiliary[:, :-1]], 1).to(logits)  # [B, m, C]
        decision = self.context.decision(dict.fromkeys(self.context.terms, uniform(batch).to(batch.teacher_logits)))
        temperature = self.context.settings.distillation.temperature
        penalty = self.strength * ramp_weight(float(batch.progress[0]), self.ramp_up) * peer_loss(logits, means, temperature)
        for each in others.unbind(1):
            penalty = penalty + decision.strengths.get("label", 0.0) * label.ce(each, batch.labels)
            penalty = penalty + decision.strengths.get("response", 0.0) * per_teacher(each, batch.teacher_logits, temperature).mean(1)
        return replace(decision, penalty=penalty)

    def state(self) -> dict[str, Any]:
        """Return the mean and the random state."""
        return {**super().state(), "mean": dict(enumerate(self.mean)), "decided": self._decided}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        super().load_state(state)
        parameters = self.context.student.parameters
        self.mean = [state["mean"][number].to(parameters[number], copy=True) for number in sorted(state["mean"])]
        self._decided = state["decided"]

    @torch.no_grad()
    def _update_mean(self, update: int) -> None:
        """Move the mean towards the student after ``update`` updates, once for each."""
        parameters = self.context.student.parameters
        if update == 0:
            self.mean = [parameter.detach().clone() for parameter in parameters]
        elif update != self._decided:
            rate = 1.0 - min(1.0 - 1.0 / (update + 1), self.decay)
            self.mean = [torch.lerp(mean, parameter, rate) for mean, parameter in zip(self.mean, parameters, strict=True)]
        self._decided = update


def peer_loss(logits: Tensor, means: Tensor, temperature: float) -> Tensor:
    """Return what the ensemble and the means of the other heads teach the m heads, ``[B]``.

    Args:
        logits: of the heads and, last, of their ensemble, ``[B, m + 1, C]``.
        means: logits of the temporal means of the heads, ``[B, m, C]``.
        temperature: divides all logits; losses have its square.
    """
    context, heads = LossContext(temperature), logits[:, :-1]
    ensemble = tempered_kl(logits[:, -1:].detach(), heads, context).sum(1)  # [B]
    pairs = tempered_kl(means[:, None].detach(), heads[:, :, None], context)  # [B, m, m]: of each head to each mean
    own = pairs.diagonal(dim1=1, dim2=2).sum(1)
    return ensemble + (pairs.sum((1, 2)) - own) / (heads.shape[1] - 1)


def ramp_weight(progress: float, ramp_up: float) -> float:
    """Return the weight of the peer terms when a part ``progress`` of the budget is spent; it reaches 1 at ``ramp_up``."""
    return math.exp(-5.0 * (1.0 - progress / ramp_up) ** 2) if progress < ramp_up else 1.0
