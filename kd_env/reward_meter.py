"""The reward meter: how good the student is on held-out reward examples, measured before and after on the *same* ones.

In: a student and the labelled reward examples. Out: its improvement since the last measurement, and the held-out gradient. Paired measurement
is what makes a single update's effect visible: across different examples the difference drowns in their own spread.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.student.encode import take
from kd_env.student.student import Student
from kd_env.types import Inputs

REDRAW = 10
"""Measurements on one draw of examples. A draw costs one more pass; a fixed draw would leave the other labels unused."""


class RewardMeter:
    """Measures on ``examples`` of the labelled reward examples; the draws follow from ``seed`` alone."""

    def __init__(self, inputs: Inputs, labels: Tensor, examples: int, measure: Literal["loss", "metric"], seed: int) -> None:
        """Hold the reward examples that have labels: ``inputs`` and ``labels`` ``[N]``."""
        self.inputs, self.labels = inputs, labels
        self.examples = min(examples, len(labels))
        self._index = ("loss", "metric").index(measure)
        self._seed = seed
        self.measurements = 0
        self.before: float | None = None  # value at the last measurement, on the current draw
        self.gradient: list[Tensor] | None = None  # of the held-out loss, one tensor a parameter
        self.gradient_update = -1
        self.forward_examples = 0

    def improvement(self, student: Student) -> float:
        """How much better the student is than at the last call (or at :meth:`start`), on the same examples."""
        assert self.before is not None, "start() comes first"
        draw = self._draw("measurement", self.measurements // REDRAW)
        after = self._value(student, draw)
        gained = (self.before - after) if self._index == 0 else (after - self.before)
        self.measurements += 1
        self.before = after
        if self.measurements % REDRAW == 0 and self.examples < len(self.labels):
            self.before = self._value(student, self._draw("measurement", self.measurements // REDRAW))
        return gained

    def start(self, student: Student) -> None:
        """Measure the student before its first update."""
        self.before = self._value(student, self._draw("measurement", 0))

    def held_out_gradient(self, student: Student, update: int, refresh: int, head_only: bool = False) -> list[Tensor]:
        """Gradient of the held-out loss for each parameter (zero below the classifier if ``head_only``), less than ``refresh`` updates old."""
        if self.gradient is None or update - self.gradient_update >= refresh:
            draw = self._draw("gradient", update)
            parameters = list(student.network.parameters())
            wanted = list(student.classifier.parameters()) if head_only else parameters
            student.network.eval()
            logits = student.forward(take(self.inputs, draw, student.device)).logits
            found = dict(zip(wanted, torch.autograd.grad(cross_entropy(logits, self.labels[draw].to(student.device)), wanted), strict=True))
            student.network.train()
            self.gradient = [found[parameter] if parameter in found else torch.zeros_like(parameter) for parameter in parameters]
            self.gradient_update = update
            self.forward_examples += len(draw)
        return self.gradient

    def _value(self, student: Student, draw: np.ndarray) -> float:
        self.forward_examples += len(draw)
        return student.evaluate({name: tensor[draw] for name, tensor in self.inputs.items()}, self.labels[draw])[self._index]

    def _draw(self, purpose: Literal["measurement", "gradient"], number: int) -> np.ndarray:
        if self.examples == len(self.labels):
            return np.arange(self.examples)
        rng = np.random.default_rng([self._seed, ("measurement", "gradient").index(purpose), number])
        return rng.choice(len(self.labels), self.examples, replace=False)
