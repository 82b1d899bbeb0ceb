"""``attention``: the last layer's self-attention and value relation (MiniLM, Wang et al. 2020, arXiv 2002.10957).

The loss is ``mean_t KL(A^T_t || A^S_t) + mean_t KL(V^T_t || V^S_t)`` over the query tokens ``t`` that are not padding. ``A`` is the
attention and ``V`` the value relation. Each row is a distribution over the keys.

Deviation: heads are averaged before the comparison, so that networks can have different numbers of heads (``models/encoder.py``). Student
and teacher must read the same tokens: an environment refuses a teacher with a tokenizer of another vocabulary, and one that cuts texts at
another length. Logarithms are floored at ``log 1e-20``, so value and gradient stay bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.types import ModelOutput

MIN_PROBABILITY = 1e-20


@dataclass(frozen=True)
class Attention(Knowledge):
    """Match the tokens that the teacher attends to.

    Attributes:
        values: whether to match the value relation too.
    """

    compares: ClassVar[Output] = "attention"

    values: bool = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's attention and, with ``values``, its value relation, ``[B, 1 or 2, T, T]``."""
        assert teacher.attention is not None
        return teacher.attention if self.values else teacher.attention[:, :1]

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the KL between ``target [B, 1 or 2, T, T]`` and the student, ``[B]``. Their T may differ by padding."""
        assert student.attention is not None
        tokens = min(student.attention.shape[-1], target.shape[-1])
        p, q = target[..., :tokens, :tokens], student.attention[:, : target.shape[1], :tokens, :tokens]
        divergence = (p * _log_ratio(p, q)).sum(3)  # [B, 1 or 2, T], zero for padding, where p is zero
        num_tokens = (p[:, 0].sum(2) > 0.0).sum(1)  # [B], without padding
        return divergence.sum((1, 2)) / num_tokens.clamp_min(1)


def _log_ratio(p: Tensor, q: Tensor) -> Tensor:
    return p.clamp_min(MIN_PROBABILITY).log() - q.clamp_min(MIN_PROBABILITY).log()
