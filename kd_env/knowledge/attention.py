"""``attention``: the last layer's self-attention and value relation (MiniLM, Wang et al. 2020, arXiv 2002.10957).

``mean_t KL(A^T_t || A^S_t) + mean_t KL(V^T_t || V^S_t)`` over the real (non-padding) query tokens ``t``; ``A`` is attention and ``V``
the value relation, each row a distribution over the keys.

Deviation: the mean over heads is compared, not head by head, so that networks with different numbers of heads can be compared
(``models/encoder.py``). Student and teacher read the same tokens: where an environment is made, a teacher whose tokenizer has another
vocabulary than the student's is refused. Logarithms are floored at ``log 1e-20``: beyond that neither value nor gradient grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.types import ModelOutput

SMALLEST_PROBABILITY = 1e-20


@dataclass(frozen=True)
class Attention(Knowledge):
    """Which tokens the teacher attends to.

    Attributes:
        values: match the value relation too.
    """

    compares: ClassVar[Output] = "attention"

    values: bool = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's attention, and its value relation if ``values``, ``[B, 1 or 2, T, T]``."""
        assert teacher.attention is not None
        return teacher.attention if self.values else teacher.attention[:, :1]

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the KL from ``target [B, 1 or 2, T, T]``, whose T may differ from the student's in padding, ``[B]``."""
        assert student.attention is not None
        tokens = min(student.attention.shape[-1], target.shape[-1])
        p, q = target[..., :tokens, :tokens], student.attention[:, : target.shape[1], :tokens, :tokens]
        divergence = (p * _log_ratio(p, q)).sum(3)  # [B, 1 or 2, T], zero for padding, whose p is zero
        real = (p[:, 0].sum(2) > 0.0).sum(1)  # [B]
        return divergence.sum((1, 2)) / real.clamp_min(1)


def _log_ratio(p: Tensor, q: Tensor) -> Tensor:
    return p.clamp_min(SMALLEST_PROBABILITY).log() - q.clamp_min(SMALLEST_PROBABILITY).log()
