"""``contrast``: differences between examples (Comparative Knowledge Distillation, Wilf et al. 2023, arXiv 2311.02253).

``l_b = mean_{j != b} mean_c ((z_b - z_j) - (t_b - t_j))_c^2`` with ``z`` the student's logits and ``t`` the teacher's: the student may
be off by any vector that all examples share.

The paper could not be read beyond its abstract, by which the student learns the differences in a teacher's interpretation of samples: that
these are squared differences of logits, of all pairs of a mini-batch, is as described in this project's methods notes. Groups of more than
two examples, which the abstract names as an extension, are not built. A mini-batch of one gives zero. Memory grows as ``B^2 C``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class Contrast(Knowledge):
    """How the teacher tells examples apart."""

    needs: ClassVar[Part] = "logits"

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's logits ``[B, C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Mean squared difference to the teacher's differences, from its logits ``target [B, C]`` -> ``[B]``."""
        error = student.logits - target
        return (error[:, None] - error).square().mean(2).sum(1) / max(len(error) - 1, 1)
