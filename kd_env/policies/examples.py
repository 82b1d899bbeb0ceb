"""Examples that a policy is fitted on: the outputs of the teachers, and the labels that its access includes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Examples(NamedTuple):
    """Examples with the teachers' outputs.

    ``labels`` is ``None`` where the access does not include them.
    """

    teacher_logits: Tensor  # [n, K, C]
    teacher_features: tuple[Tensor, ...]  # K x [n, D_k]
    labels: Tensor | None  # [n]

    def known_labels(self) -> Tensor:
        """Return the labels, where the access includes them."""
        assert self.labels is not None
        return self.labels
