"""``contrast``: differences between examples (Comparative Knowledge Distillation, Wilf et al. 2023, arXiv 2311.02253).

The loss is ``l_b = mean_{j != b} mean_c ((z_b - z_j) - (t_b - t_j))_c^2``, where ``z`` are the student's and ``t`` the teacher's logits. It
does not change if the same vector is added to the student's logits of all examples.

Deviations: only the paper's abstract was available. In it, the student learns how the teacher's interpretations of samples differ. This
project chose squared differences of logits over all pairs of a mini-batch. Groups of more than two examples, an extension in the abstract,
are not implemented. A mini-batch of one example has a loss of zero. Memory grows as ``B^2 C``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class Contrast(Knowledge):
    """Match the differences between examples in the teacher's logits."""

    compares: ClassVar[Output] = "logits"

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's logits ``[B, C]``."""
        return teacher.logits

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared error of the student's differences between examples, ``[B]``; ``target [B, C]`` are teacher logits."""
        error = student.logits - target
        return (error[:, None] - error).square().mean(2).sum(1) / max(len(error) - 1, 1)
