"""Compute a function of the teachers' outputs once for each training example. In: a function. Out: its values for a mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kd_env.envs.selection import Selection
from kd_env.policies.batch import PolicyBatch
from kd_env.policies.examples import Examples

CHUNK = 4096
"""Number of examples whose values are computed at once."""
OfTeachers = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""Function of ``teacher_logits [n, K, C]`` and ``teacher_features``, K x ``[n, D_k]``. It returns a value per example, ``[n, ...]``."""


class OncePerExample:
    """The values of a function for all training examples, computed at the first call and remembered.

    All are computed at once, in the same chunks in each run, so that a resumed run has the same values. Where the teachers' outputs for an
    example change (they drift, answer live or learn), nothing is remembered.
    """

    def __init__(self, selection: Selection, function: OfTeachers, temperatures: Callable[[], np.ndarray | None]) -> None:
        """Remember nothing yet.

        Args:
            selection: environment whose teachers are read.
            function: function to compute.
            temperatures: returns what the teachers' logits are divided by now, ``[K]``; ``None`` for no division.
        """
        self._selection, self._function, self._temperatures = selection, function, temperatures
        self._values: Tensor | None = None  # [N, ...]
        self._computed_with: list[float] | None = None  # temperatures

    @torch.no_grad()
    def __call__(self, batch: PolicyBatch) -> Tensor:
        """Return the values for a mini-batch of training examples, ``[n, ...]``."""
        data, settings = self._selection.data, self._selection.settings.distillation
        if data.bank.drift is not None or settings.teacher_answers == "live":
            return self._function(batch.teacher_logits, batch.teacher_features)
        temperatures = self._temperatures()
        as_list = None if temperatures is None else temperatures.tolist()
        if self._values is None or as_list != self._computed_with:
            self._values, self._computed_with = self._of_all(temperatures), as_list
        return self._values[batch.example_ids]

    def forget(self) -> None:
        """Compute the values again at the next call, because the function has changed."""
        self._values = None

    def _of_all(self, temperatures: np.ndarray | None) -> Tensor:
        data, student = self._selection.data, self._selection.distillation.student
        positions = np.arange(len(data.labels["train"]))
        values = []
        for start in range(0, len(positions), CHUNK):
            examples = Examples.of(data, "train", positions[start : start + CHUNK], temperatures)
            logits, *features = (
                tensor.to(student.device, student.dtype) for tensor in (examples.teacher_logits, *examples.teacher_features)
            )
            values.append(self._function(logits, features))
        return torch.cat(values)
