"""``self_stacking``: a mixture of teachers that is fitted without labels, to its own first answers.

1. A teacher's confidence is compared with its own: its entropy is standardised over unlabelled examples, and

       v_k(x) = softmax_k(-z_k(x) / 0.5),    z_k(x) = (H_k(x) - mean H_k) / std H_k

   favours the teacher that is surer than it usually is. A teacher that is always sure gains nothing by that.
2. The most likely classes of the mixture sum_k v_k(x) p_k(y|x) are taken as labels (pseudo-labels, Lee 2013, ICML workshop). A scorer,
   whose softmax is the weights w_k(x), is fitted to them by the likelihood of the mixture that they teach, as in :mod:`baselines.stacking`.
   Teachers that the others contradict lose weight.

The first step alone gives all teachers about equal shares, which is wrong where some are worse everywhere; the second step corrects a part
of that. Neither can detect an error that most teachers share. The method is our own; it reads no label of any split.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from baselines.mixture import density
from baselines.rule import WEIGHTS, BaseRule
from baselines.stacking import Instances, Network, fitted
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.randomness import seeded

TEMPERATURE = 0.5
RIDGE = 1e-2
MIN_DEVIATION = 1e-6
"""Of a teacher's entropy, so that a teacher that is always equally sure is not divided by 0."""


def relative_confidence(entropy: Tensor) -> Tensor:
    """Return weights that favour teachers that are surer than they usually are, ``entropy [n, K]`` -> ``[n, K]``, rows on the simplex."""
    deviation = entropy.std(0, correction=0).clamp_min(MIN_DEVIATION)
    return ((entropy.mean(0) - entropy) / deviation / TEMPERATURE).softmax(1)


def fit(teacher_logits: Tensor, instances: Instances) -> Network:
    """Fit a scorer to the answers of the mixture by :func:`relative_confidence`; ``teacher_logits [n, K, C]`` of ``instances``."""
    probabilities = teacher_logits.double().log_softmax(2).exp()  # [n, K, C]
    start = relative_confidence(torch.special.entr(probabilities).sum(2))
    answers = torch.einsum("nk,nkc->nc", start, probabilities).argmax(1)  # [n]
    return fitted(Network(instances, "", scorer=True), instances, density(teacher_logits, answers), RIDGE)


class SelfStacking(BaseRule):
    """Fits once, before the first update, on the teachers' outputs for the reward split."""

    access = "teacher outputs"
    learns_from = "teacher outputs, once"
    env_options: dict[str, Any] = WEIGHTS
    min_teachers = 2

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Fit the scorer; ``seed`` decides its first parameters."""
        super().__init__(context, seed)
        examples = context.reward_outputs()
        with seeded(seed):
            self.network = fit(examples.teacher_logits, Instances.of(examples.teacher_logits, examples.teacher_features))

    @torch.no_grad()
    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the weights of the mixture, ``[n, K]``."""
        weights: Tensor = self.network(Instances.of(batch.teacher_logits, batch.teacher_features))
        return weights
