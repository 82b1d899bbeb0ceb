"""The reward meter: how good the student is on held-out reward examples, measured before and after on the *same* ones.

In: a student and the labelled reward examples. Out: its improvement since the last measurement, and the held-out gradient. Paired
measurement is what makes a single update's effect visible: across different examples the difference drowns in their own spread.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from kd_env.errors import InputError
from kd_env.randomness import stream
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
        self.measure = measure
        self._seed = seed
        self.measurements = 0
        self._drawn: tuple[int, Inputs, Tensor] | None = None  # the current draw's number, inputs and labels
        self.before: tuple[float, float] | None = None  # loss and metric at the last measurement, on the current draw
        self.gradient: list[Tensor] | None = None  # of the held-out loss, one tensor a parameter
        self.gradient_update = -1
        self.gradient_of_head = False  # zero below the classifier
        self.forward_examples = 0

    @property
    def metric(self) -> float:
        """Metric at the last measurement, 0 before the first."""
        return 0.0 if self.before is None else self.before[1]

    def improvement(self, student: Student) -> float:
        """How much better the student is than at the last call (or at :meth:`start`), on the same examples."""
        assert self.before is not None, "start() comes first"
        before, after = self.before, self._values(student)
        self.measurements += 1
        self.before = after
        if self.measurements % REDRAW == 0 and self.examples < len(self.labels):
            self.start(student)
        return before[0] - after[0] if self.measure == "loss" else after[1] - before[1]

    def start(self, student: Student) -> None:
        """Measure the student on the current draw: before its first update, or when a new draw begins."""
        self.before = self._values(student)

    def held_out_gradient(self, student: Student, update: int, refresh: int, head_only: bool = False) -> list[Tensor]:
        """Gradient of the held-out loss a parameter (zero below the classifier if ``head_only``), less than ``refresh`` updates old."""
        if self.gradient is None or update - self.gradient_update >= refresh or (self.gradient_of_head and not head_only):
            draw = self._draw("gradient", update)
            parameters = list(student.network.parameters())
            wanted = list(student.classifier.parameters()) if head_only else parameters
            with student.evaluating(), torch.set_grad_enabled(not head_only):
                output = student.forward(take(self.inputs, draw, student.device))
            logits = linear(output.features, *wanted) if head_only else output.logits
            found = dict(zip(wanted, torch.autograd.grad(cross_entropy(logits, self.labels[draw].to(student.device)), wanted), strict=True))
            self.gradient = [found[parameter] if parameter in found else torch.zeros_like(parameter) for parameter in parameters]
            self.gradient_update, self.gradient_of_head = update, head_only
            self.forward_examples += len(draw)
        return self.gradient

    @torch.no_grad()
    def held_out_loss(self, student: Student, network: nn.Module, update: int) -> float:
        """Loss of ``network`` on the examples that the held-out gradient of ``update`` was taken on."""
        draw = self._draw("gradient", update)
        self.forward_examples += len(draw)
        logits = network.eval()(**student.cast(take(self.inputs, draw, student.device))).logits
        return float(cross_entropy(logits, self.labels[draw].to(student.device)))

    def _values(self, student: Student) -> tuple[float, float]:
        number = self.measurements // REDRAW
        if self._drawn is None or self._drawn[0] != number:
            draw = self._draw("measurement", number)
            self._drawn = number, take(self.inputs, draw, student.device), self.labels[draw].to(student.device)
        self.forward_examples += self.examples
        return student.evaluate(*self._drawn[1:])

    def _draw(self, purpose: Literal["measurement", "gradient"], number: int) -> np.ndarray:
        if self.examples == len(self.labels):
            return np.arange(self.examples)
        return stream(self._seed, purpose, number).choice(len(self.labels), self.examples, replace=False)


def labelled_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of ``count`` reward examples (0: all) in proportion to the classes, a prefix of the same order for every count.

    Raises:
        InputError: more are asked for than there are.
    """
    if count > len(labels):
        raise InputError(f"reward_labels={count}: the reward split has {len(labels)} examples; 0 means all of them")
    rng = stream(seed, "labels")
    place = np.empty(len(labels))
    for value in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == value))
        place[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
    order = np.argsort(place, kind="stable")
    return order[: count or len(labels)]
