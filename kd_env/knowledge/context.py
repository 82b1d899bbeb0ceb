"""What a loss may depend on besides the outputs of student and teacher: the decision's temperature, and the labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossContext:
    """Context of a knowledge type's loss.

    Attributes:
        temperature: a number, or a tensor ``[B, 1]``, one for each example: it divides the logits.
        labels: true labels ``[B]``, -1 where unknown; ``None`` where labels are not part of the setting.
    """

    temperature: float | Tensor = 1.0
    labels: Tensor | None = None

    @property
    def temperature_squared(self) -> float | Tensor:
        """Squared temperature, of a tensor without its last axis: it multiplies a loss ``[B]``."""
        return self.temperature.squeeze(-1) ** 2 if isinstance(self.temperature, Tensor) else self.temperature**2

    def for_all_teachers(self) -> LossContext:
        """Return the context with an axis for teachers after B: it broadcasts against outputs ``[B, K, ...]``."""
        temperature = self.temperature[:, None] if isinstance(self.temperature, Tensor) else self.temperature
        return LossContext(temperature, None if self.labels is None else self.labels[:, None])
