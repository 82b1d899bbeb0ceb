"""The reward split: the held-out labelled examples that rewards and credit are measured on.

In: an encoded task, and how many labels there are. Out: rows that each student may use, and random draws from them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation.data import EncodedTask
from kd_env.errors import InputError
from kd_env.models.encode import take
from kd_env.randomness import stream
from kd_env.types import Inputs

Purpose = Literal["measurement", "gradient", "reward_ce"]
"""What examples are drawn for; each purpose has random numbers of its own."""


class RewardSplit:
    """The reward examples whose labels are available to each of S students.

    Attributes:
        rows: rows of the reward split with a label, shape ``[S, n]``.
        label_seeds: the seeds that chose those rows, one per student.
    """

    def __init__(self, data: EncodedTask, num_labels: int, label_seeds: Sequence[int]) -> None:
        """Choose ``num_labels`` examples (0: all of them) for each student.

        Raises:
            InputError: more labels are asked for than the split has.
        """
        self._inputs, self._labels = data.inputs["reward"], data.labels["reward"]
        self.label_seeds = [int(seed) for seed in label_seeds]
        labels = self._labels.numpy()
        self.rows = np.stack([labelled_rows(labels, num_labels, seed) for seed in self.label_seeds])  # [S, n]

    @property
    def num_labels(self) -> int:
        """Number of labels that each student has, n."""
        return int(self.rows.shape[1])

    def of_student(self, student: int) -> RewardSplit:
        """Return the split as one student has it."""
        split = copy.copy(self)
        split.rows, split.label_seeds = self.rows[student : student + 1], self.label_seeds[student : student + 1]
        return split

    def draw(self, seeds: np.ndarray, purpose: Purpose, number: np.ndarray, count: int) -> np.ndarray:
        """Draw ``count`` rows for each student without replacement.

        Args:
            seeds: the students' seeds ``[S]``.
            number: which draw it is, per student ``[S]``; equal seeds and numbers draw equal rows.

        Returns:
            Rows of the reward split, ``[S * count]``, those of student 0 first.
        """
        size = self.num_labels
        if purpose != "reward_ce" and count == size:
            return self.rows.ravel()
        picks = [stream(int(seed), purpose, int(n)).choice(size, count, replace=False) for seed, n in zip(seeds, number, strict=True)]
        return np.concatenate([rows[pick] for rows, pick in zip(self.rows, picks, strict=True)])

    def at(self, rows: np.ndarray, device: torch.device | None = None) -> tuple[Inputs, Tensor]:
        """Return inputs and labels of some rows of the reward split, by default on the device where they are stored."""
        device = device or self._labels.device
        return take(self._inputs, rows, device), self._labels[rows].to(device)


def labelled_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return rows of ``count`` examples (0: all) in proportion to the classes; a smaller count gives a prefix of the same order.

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
