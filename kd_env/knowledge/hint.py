"""``hint``: the features that the classifier reads, as a hint (FitNets; Romero et al. 2015, arXiv 1412.6550).

``mean_d (r_k(F_S)_d - F_kd)^2``, the feature loss of FitNet-MKD, CA-MKD (Zhang et al. 2022, arXiv 2201.00007) and MMKD (Zhang et al. 2023,
arXiv 2306.06634). Their features are maps of a convolution and ``r_k`` a 1x1 convolution; here both are vectors and ``r_k`` a matrix.

``normalized`` compares directions, ``|r_k(F_S) / |r_k(F_S)| - F_k / |F_k||^2 = 2 - 2 cos``: twice DistilBERT's cosine loss (Sanh et al.
2019, arXiv 1910.01108).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.knowledge.layer import unit
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class Hint(Knowledge):
    """What the teacher's classifier reads.

    Attributes:
        normalized: compare directions (DistilBERT's cosine) instead of values.
    """

    needs: ClassVar[Part] = "features"
    projects: ClassVar[bool] = True

    normalized: bool = False

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Squared distance to the teacher's ``target [B, D_k]`` of the student's features, mapped to D_k -> ``[B]``."""
        if self.normalized:
            return (unit(student.features) - unit(target)).square().sum(1)
        return (student.features - target).square().mean(1)
