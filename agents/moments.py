"""Running moments. In: states or rewards of a mini-batch. Out: the same, standardised by those of the mini-batches before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardised(nn.Module):
    """Subtracts the running mean of each column and divides by its running deviation, since states change as the student learns."""

    seen: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, num_columns: int) -> None:
        """Start with mean 0 and deviation 1."""
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))  # number of mini-batches
        self.register_buffer("mean", torch.zeros(num_columns))
        self.register_buffer("variance", torch.ones(num_columns))

    def forward(self, states: Tensor) -> Tensor:
        """Return the standardised states, ``[..., F]`` -> ``[..., F]``."""
        return (states - self.mean) / (self.variance.sqrt() + 1e-3)

    @torch.no_grad()
    def adapt(self, states: Tensor) -> None:
        """Add a mini-batch ``[..., F]`` to the moments: plain means over the first hundred, then exponential ones."""
        adapt_moments(self.seen, self.mean, self.variance, states.flatten(0, -2))


def adapt_moments(seen: Tensor, mean: Tensor, variance: Tensor, states: Tensor) -> None:
    """Add mini-batches ``[..., n, F]`` in place to the number of mini-batches ``[...]`` and to the moments ``[..., F]``."""
    seen += 1
    lerp_weight = (1.0 / seen).clamp_min(0.01)[..., None]
    variance.lerp_(states.var(-2, correction=0), lerp_weight)
    mean.lerp_(states.mean(-2), lerp_weight)


class RunningMoments:
    """Exponential mean and deviation of the rewards of mini-batches."""

    def __init__(self, decay: float = 0.95) -> None:
        """Start without any."""
        self.decay, self.mean, self.square, self.weight = decay, 0.0, 0.0, 0.0

    def standardise(self, values: Tensor) -> Tensor:
        """Return ``(values - mean) / deviation`` by the moments before these values, and add the values to the moments."""
        mean = self.mean / self.weight if self.weight else float(values.mean())
        centred = values - mean
        spread = (self.square / self.weight) ** 0.5 if self.weight else 0.0
        self.weight = self.decay * self.weight + (1.0 - self.decay)
        self.mean = self.decay * self.mean + (1.0 - self.decay) * float(values.mean())
        self.square = self.decay * self.square + (1.0 - self.decay) * float(centred.square().mean())
        return centred / spread if spread > 1e-6 * abs(mean) else torch.zeros_like(values)  # below that it is rounding

    def state(self) -> dict[str, float]:
        """Return the moments."""
        return {"mean": self.mean, "square": self.square, "weight": self.weight}

    def load_state(self, state: dict[str, float]) -> None:
        """Continue from what :meth:`state` returned."""
        self.mean, self.square, self.weight = state["mean"], state["square"], state["weight"]
