"""Collect examples that a policy is fitted on: the outputs of the teachers, and the labels that its access includes."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import EncodedTask
from kd_env.distillation.calibration import calibrated


class Examples(NamedTuple):
    """Examples with the teachers' outputs.

    ``labels`` is ``None`` where the access does not include them.
    """

    teacher_logits: Tensor  # [n, K, C]
    teacher_features: tuple[Tensor, ...]  # K x [n, D_k]
    labels: Tensor | None  # [n]

    @classmethod
    def of(cls, data: EncodedTask, split: str, positions: np.ndarray, temperatures: np.ndarray | None, labels: bool = False) -> Self:
        """Return the examples at ``positions``, with the teachers' logits divided by ``temperatures [K]``."""
        outputs = data.bank.gather(split, positions)
        features = tuple(torch.from_numpy(array) for array in outputs.features)
        return cls(calibrated(outputs.logits, temperatures), features, data.labels[split][positions] if labels else None)

    def known_labels(self) -> Tensor:
        """Return the labels, where the access includes them."""
        assert self.labels is not None
        return self.labels
