"""The reward meter: how good the student is on held-out reward examples, measured before and after on the *same* ones.

In: a student and the labelled reward examples. Out: its improvement since the last measurement, and the held-out gradient. Paired
measurement is what makes a single update's effect visible: across different examples the difference drowns in their own spread.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.errors import InputError
from kd_env.models.encode import take
from kd_env.randomness import stream
from kd_env.student.protocol import Students
from kd_env.types import Inputs

REDRAW = 10
"""Measurements on one draw of examples. A draw costs one more pass; a fixed draw would leave the other labels unused."""


class RewardMeter:
    """Measures S students on ``examples`` of their labelled reward examples; student s's draws follow from ``seeds[s]`` alone."""

    def __init__(self, inputs: Inputs, labels: Tensor, rows: np.ndarray, examples: int, measure: Literal["loss", "metric"]) -> None:
        """Hold the reward split: ``inputs`` and ``labels`` ``[N]``, of which student s may see the labels of ``rows[s]``, ``[S, n]``."""
        self._all_inputs, self._all_labels, self.rows = inputs, labels, rows
        num_students = len(rows)
        self.examples = min(examples, rows.shape[1])
        self.measure = measure
        self.seeds = np.zeros(num_students, dtype=np.int64)
        self.measurements = np.zeros(num_students, dtype=np.int64)
        self._drawn: tuple[tuple[tuple[int, int], ...], Inputs, Tensor] | None = None  # what the current draws are, inputs and labels
        self.before = np.full((2, num_students), np.nan)  # loss and metric at the last measurement, on the current draw
        self.gradient: list[Tensor] | None = None  # of the held-out loss, one tensor a leaf
        self.gradient_update = np.full(num_students, -1)
        self.gradient_of_head = False  # zero below the classifier
        self.forward_examples = np.zeros(num_students, dtype=np.int64)

    @property
    def metric(self) -> np.ndarray:
        """Metric at the last measurement ``[S]``, 0 before the first."""
        return np.asarray(np.nan_to_num(self.before[1], nan=0.0))

    def reset_student(self, student: int, seed: int) -> None:
        """Begin again for one student."""
        self.seeds[student], self.measurements[student] = seed, 0
        self.before[:, student], self.gradient_update[student] = np.nan, -1
        self.forward_examples[student] = 0

    def improvement(self, student: Students, due: np.ndarray) -> np.ndarray:
        """How much better the students that are ``due`` ``[S]`` are than at their last measurement (:meth:`start` is the first).

        On the same examples; NaN for the others, and for those whose loss was NaN.
        """
        before, after = self.before.copy(), self._values(student, due)
        self.measurements += due
        self.before = np.where(due, after, before)
        redrawn = due & (self.measurements % REDRAW == 0) & (self.examples < self.rows.shape[1])
        if redrawn.any():
            self.start(student, redrawn)
        gained = before[0] - after[0] if self.measure == "loss" else after[1] - before[1]
        return np.where(due, gained, np.nan)

    def start(self, student: Students, which: np.ndarray) -> None:
        """Measure the students in ``which`` ``[S]`` on their current draw: before the first update, or when a new draw begins."""
        self.before = np.where(which, self._values(student, which), self.before)

    def held_out_gradient(self, student: Students, update: np.ndarray, refresh: int, head_only: bool = False) -> list[Tensor]:
        """Gradient of the held-out loss a leaf (zero below the classifier if ``head_only``), less than ``refresh`` updates old."""
        stale = (self.gradient_update < 0) | (update - self.gradient_update >= refresh) | (self.gradient_of_head and not head_only)
        if self.gradient is None or stale.any():
            inputs, labels = self._examples("gradient", update, student, stale)
            parameters = student.parameters
            with student.evaluating(), torch.set_grad_enabled(not head_only):
                output = student.forward(inputs)
            logits = student.classify(output.features.detach(), parameters) if head_only else output.logits
            loss = student.num_students * cross_entropy(logits, labels)  # the sum of the students' means
            found = list(torch.autograd.grad(loss, parameters, materialize_grads=True))
            if self.gradient is not None and not stale.all() and student.num_students > 1:  # one student began again
                taken = torch.from_numpy(stale).to(student.device)[:, None]
                found = [torch.where(taken, new, old) for new, old in zip(found, self.gradient, strict=True)]
            self.gradient = found
            self.gradient_update = np.where(stale, update, self.gradient_update)
            self.gradient_of_head = head_only
        return self.gradient

    @torch.no_grad()
    def held_out_loss(self, student: Students, parameters: list[Tensor], update: np.ndarray) -> Tensor:
        """Loss ``[S]`` with ``leaves`` as the parameters, on the examples that the held-out gradient of ``update`` was taken on."""
        inputs, labels = self._examples("gradient", update, student, np.ones_like(update))
        with student.evaluating():
            logits = student.forward_at(parameters, inputs).logits
        return cross_entropy(logits, labels, reduction="none").view(student.num_students, -1).mean(1)

    def draw(self, purpose: Literal["measurement", "gradient", "reward_ce"], number: np.ndarray, count: int) -> np.ndarray:
        """Rows of the reward split, ``count`` for each student, ``[S * count]``."""
        size = self.rows.shape[1]
        if purpose != "reward_ce" and count == size:
            return self.rows.ravel()
        picks = [stream(int(seed), purpose, int(n)).choice(size, count, replace=False) for seed, n in zip(self.seeds, number, strict=True)]
        return np.concatenate([rows[pick] for rows, pick in zip(self.rows, picks, strict=True)])

    def at(self, rows: np.ndarray, device: torch.device | None = None) -> tuple[Inputs, Tensor]:
        """Inputs and labels of some rows of the reward split, by default where they are kept."""
        device = device or self._all_labels.device
        return take(self._all_inputs, rows, device), self._all_labels[rows].to(device)

    def _values(self, student: Students, which: np.ndarray) -> np.ndarray:
        number = self.measurements // REDRAW
        wanted = tuple(zip(self.seeds.tolist(), number.tolist(), strict=True))
        if self._drawn is None or self._drawn[0] != wanted:
            self._drawn = wanted, *self.at(self.draw("measurement", number, self.examples), student.device)
        self.forward_examples += self.examples * which
        return np.stack(student.evaluate(*self._drawn[1:]))

    def _examples(self, purpose: Literal["gradient"], number: np.ndarray, student: Students, which: np.ndarray) -> tuple[Inputs, Tensor]:
        inputs, labels = self.at(self.draw(purpose, number, self.examples), student.device)
        self.forward_examples += self.examples * which
        return inputs, labels


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
