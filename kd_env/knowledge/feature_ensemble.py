"""``feature_ensemble``: features of several teachers, each met by a map that bends (FEED; Park & Kwak 2019, arXiv 1909.10754).

``sum_d |n_k(F_S)_d / |n_k(F_S)| - F_kd / |F_k||``, the L1 distance of directions, with a nonlinear map ``n_k`` a teacher that learns with
the student. Parallel FEED, known as FE-MKD among its rivals, adds these over all teachers to the cross-entropy.

Deviations: the paper's maps are three 3x3 convolutions over the last feature map, three so as to look further around; a vector has no
surroundings, and ``n_k`` is two linear layers with a ReLU between them. Teachers are weighted (1/K each where they are alike), not added.
The paper's equations could not be opened, only accounts of them: distance and norms are as this project's methods notes have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.knowledge.layer import unit
from kd_env.types import ModelOutput


@dataclass(frozen=True)
class FeatureEnsemble(Knowledge):
    """The direction of what the teacher's classifier reads, met by a nonlinear map (FEED)."""

    needs: ClassVar[Part] = "features"
    projects: ClassVar[bool] = True
    bends: ClassVar[bool] = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """L1 distance of directions, of the student's features mapped to D_k and of ``target [B, D_k]`` -> ``[B]``, at most 2 sqrt(D_k)."""
        return (unit(student.features) - unit(target)).abs().sum(1)
