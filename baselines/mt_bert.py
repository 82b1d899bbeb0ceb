"""``mt_bert``: MT-BERT's weights and multi-teacher hidden loss (Wu et al. 2021, Findings of ACL, arXiv 2106.01023).

The weight ``w_k`` of responses is proportional to ``1 / (1 + c_k)``, c_k the teacher's cross-entropy on the label; the hidden loss, between
the student's mapped layers and each teacher's, has equal weights.

``scale="matched"`` (ours): both sum to 1, with the strengths of the setting. ``scale="released"``: as the paper sums them, ``sum_k KL_k /
(1 + c_k)`` and ``sum_k`` of the hidden losses, with the label at strength 1; there is no released code.

Deviations: the hidden loss compares [CLS] of each layer, not all tokens. Which side the paper maps could not be read: here it is the
student's. Each teacher is trained alone, where the paper's share their pooling and their classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import WEIGHTS, BaseRule
from baselines.scale import Scale, check_scale, scaled
from kd_env.knowledge.label import teacher_ce
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.types import Decision


def weights(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return weights of responses, ``[B, K, C]``, ``[B]`` -> ``[B, K]``, rows on the simplex."""
    trust = 1.0 / (1.0 + teacher_ce(teacher_logits, labels))
    return trust / trust.sum(1, keepdim=True)


class MTBert(BaseRule):
    """Reads the training labels."""

    access = "train labels"
    paper = "Wu et al. 2021, arXiv 2106.01023"
    env_options = {**WEIGHTS, "knowledge": "response,layer"}
    search_space: SearchSpace = {
        "knowledge": Choice(("response,layer", "response,layer(strength=0.1)", "response,layer(strength=10)")),
    }

    def __init__(self, context: PolicyContext, seed: int = 0, scale: Scale = "matched") -> None:
        """Take ``scale``, ``matched`` or ``released``."""
        super().__init__(context, seed)
        check_scale(context, "mt_bert", scale)
        self.scale = scale

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the weights of responses and of layers, and the strengths."""
        trusted = weights(batch.teacher_logits, batch.labels)
        equal = torch.full_like(trusted, 1.0 / trusted.shape[1])
        terms = self.context.terms
        by_type = {name: equal if terms[name].knowledge.projector else trusted for name in terms}
        total = (1.0 / (1.0 + teacher_ce(batch.teacher_logits, batch.labels))).sum(1)  # [B]
        factors = {name: float(trusted.shape[1]) if terms[name].knowledge.projector else total for name in by_type}
        return scaled(self.context, by_type, self.scale, factors)
