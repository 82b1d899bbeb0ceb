"""``mt_bert``: MT-BERT's weights of soft labels (Wu et al. 2021, arXiv 2106.01023), teachers that are right weigh more.

``w_k`` in proportion to ``1 / (1 + c_k)``, c_k the teacher's cross-entropy on the label.

Deviations: the paper divides each teacher's loss by ``1 + c_k`` and adds them up, here the weights sum to 1, so that weighting is not
confounded with strength; its co-finetuning of the teachers and its multi-teacher hidden loss are not part of this rule.
"""

from __future__ import annotations

from torch import Tensor

from baselines.rule import Weighting
from kd_env.knowledge.label import teacher_ce
from kd_env.types import Features


def weights(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """``[B, K, C]``, ``[B]`` -> ``[B, K]``, rows on the simplex; ones at K = 1."""
    inverse = 1.0 / (1.0 + teacher_ce(teacher_logits, labels))
    return inverse / inverse.sum(1, keepdim=True)


class MTBERT(Weighting):
    """Reads the training labels."""

    access = "train labels"
    paper = "Wu et al. 2021, arXiv 2106.01023"

    def weigh(self, features: Features) -> Tensor:
        """:func:`weights` of the mini-batch."""
        return weights(features.teacher_logits, features.labels)
