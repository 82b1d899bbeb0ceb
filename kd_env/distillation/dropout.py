"""Give a run its own random numbers for dropout: swap the state of torch's global generators around each forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kd_env import randomness


class DropoutGenerator:
    """A generator that belongs to one run, so that other code that draws from torch's global generator does not change the run.

    Attributes:
        states: states of the generators for the next forward pass.
        before_batch: states before the forward pass of the observed mini-batch, which :meth:`replay` repeats.
    """

    def __init__(self, seed: int, device: torch.device, needed: bool) -> None:
        """Seed the generator. Without dropout (``needed`` is false) it does nothing."""
        self._device, self._needed = device, needed
        self.states: list[Tensor] = randomness.fresh_states(seed, device)
        self.before_batch = self.states

    def states_to_save(self, batch_is_observed: bool) -> list[Tensor]:
        """Return the states before the forward pass of the observed mini-batch, or before the next one if no mini-batch is observed."""
        return self.before_batch if batch_is_observed else self.states

    @contextmanager
    def draw(self) -> Iterator[None]:
        """Draw from this generator inside the context."""
        with self._swapped(self.states):
            yield
            if self._needed:
                self.states = randomness.states(self._device)

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Repeat the dropout masks of the observed mini-batch inside the context; the generator does not advance."""
        with self._swapped(self.before_batch):
            yield

    @contextmanager
    def _swapped(self, states: list[Tensor]) -> Iterator[None]:
        if not self._needed:
            yield
            return
        outer = randomness.states(self._device)
        randomness.set_states(states, self._device)
        try:
            yield
        finally:
            randomness.set_states(outer, self._device)
