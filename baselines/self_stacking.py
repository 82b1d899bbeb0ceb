"""``self_stacking``: a mixture of teachers that is fitted without labels, to its own first answers.

1. A teacher's confidence is compared with its own: its entropy is standardised over unlabelled examples, and

       w_k(x) = softmax_k(-z_k(x) / 0.5),    z_k(x) = (H_k(x) - mean H_k) / std H_k

   favours the teacher that is surer than it usually is. A teacher that is always sure gains nothing by that.
2. The most likely classes of the mixture sum_k w_k(x) p_k(y|x) are taken as labels (pseudo-labels, Lee 2013, ICML workshop), and the
   weights of a scorer are fitted to them by the likelihood of the mixture that they teach, as in :mod:`baselines.stacking`. Teachers that
   the others contradict lose weight.

The first step alone gives all teachers about equal shares, which is wrong where some are worse everywhere; the second step corrects a part
of that. Neither can know what most teachers have wrong in the same way. The method is our own; it reads no label of any split.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from baselines.rule import WEIGHTS, BaseRule
from baselines.stacking import LEAST_PROBABILITY, Instances, Network, fit_mixture
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.randomness import seeded

TEMPERATURE = 0.5
RIDGE = 1e-2
LEAST_DEVIATION = 1e-6


def relative_confidence(entropy: Tensor) -> Tensor:
    """Return weights that favour teachers that are surer than they usually are, ``entropy [n, K]`` -> ``[n, K]``, rows on the simplex."""
    deviation = entropy.std(0, correction=0).clamp_min(LEAST_DEVIATION)
    return ((entropy.mean(0) - entropy) / deviation / TEMPERATURE).softmax(1)


def fit(teacher_logits: Tensor, instances: Instances) -> Network:
    """Fit a scorer to the answers of the mixture by :func:`relative_confidence`; ``teacher_logits [n, K, C]`` of ``instances``."""
    log_probabilities = teacher_logits.double().log_softmax(2)  # [n, K, C]
    weights = relative_confidence(torch.special.entr(log_probabilities.exp()).sum(2))
    answers = torch.einsum("nk,nkc->nc", weights, log_probabilities.exp()).argmax(1)  # [n]
    index = answers[:, None, None].expand(-1, teacher_logits.shape[1], 1)
    log_likelihood = log_probabilities.gather(2, index).squeeze(2).float().clamp_min(math.log(LEAST_PROBABILITY))  # [n, K]
    return fit_mixture(Network(instances, "", scorer=True), instances, log_likelihood, RIDGE)


class SelfStacking(BaseRule):
    """Fits once, before the first update, on the teachers' outputs for the reward split."""

    access = "teacher outputs"
    learns_from = "teacher outputs, once"
    env_options: dict[str, Any] = WEIGHTS
    min_teachers = 2

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Fit the scorer; ``seed`` is of its first weights."""
        super().__init__(context, seed)
        examples = context.reward_outputs()
        with seeded(seed):
            self.network = fit(examples.teacher_logits, Instances.of(examples.teacher_logits, examples.teacher_features))

    @torch.no_grad()
    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the weights of the mixture."""
        weights: Tensor = self.network(Instances.of(batch.teacher_logits, batch.teacher_features))
        return weights
