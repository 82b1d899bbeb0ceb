"""``entropy_dkd``: entropy weights on decoupled KD. A surrogate, ours: after DE-MKD, whose formula could not be read.

``w_k = (1 - h_k / sum_j h_j) / (K - 1)``, h_k the entropy of teacher k's probabilities (the weights of Kwon et al. 2020), for both parts
of the response, target and non-target (Zhao et al. 2022, arXiv 2203.08679). The target class is the most probable class of each teacher, so
no label is read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines import ebkd
from baselines.rule import WEIGHTS, BaseRule
from kd_env.policies import PolicyBatch
from kd_env.types import Decision


def weights(teacher_logits: Tensor) -> Tensor:
    """Return :func:`baselines.ebkd.weights`, ``[B, K, C]`` -> ``[B, K]``, rows on the simplex; 1 at K = 1."""
    return ebkd.weights(teacher_logits) if teacher_logits.shape[1] > 1 else torch.ones_like(teacher_logits[:, :, 0])


class EntropyDKD(BaseRule):
    """Reads the teachers' outputs."""

    access = "teacher outputs"
    env_options = {**WEIGHTS, "knowledge": "tckd(class_of=teacher),nckd(class_of=teacher)"}

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the same weights for all knowledge types."""
        return self.context.decision(dict.fromkeys(self.context.terms, weights(batch.teacher_logits)))
