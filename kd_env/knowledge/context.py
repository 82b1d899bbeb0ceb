"""Hold the values that a loss may use besides the outputs of student and teacher: the temperature and the labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossContext:
    """Context of a knowledge type's loss.

    Attributes:
        temperature: temperature that divides the logits, a number or a tensor ``[B, 1]``.
        labels: true labels, ``[B]``, -1 where unknown; ``None`` if hard labels are not used.
    """

    temperature: float | Tensor = 1.0
    labels: Tensor | None = None

    @property
    def temperature_squared(self) -> float | Tensor:
        """Squared temperature, which multiplies a loss ``[B]``: a number, or a tensor ``[B]``."""
        return self.temperature.squeeze(-1) ** 2 if isinstance(self.temperature, Tensor) else self.temperature**2

    def for_all_teachers(self) -> LossContext:
        """Return the context with an axis for teachers after B, so that it broadcasts against outputs ``[B, K, ...]``."""
        temperature = self.temperature[:, None] if isinstance(self.temperature, Tensor) else self.temperature
        return LossContext(temperature, None if self.labels is None else self.labels[:, None])
