"""Hold the reward split: the held-out labelled examples on which rewards and credit are measured.

In: an encoded task and the number of labels. Out: the examples that each student may use, and random draws from them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation.calibration import fit_temperatures
from kd_env.distillation.data import EncodedTask
from kd_env.errors import InputError
from kd_env.models.encode import take
from kd_env.randomness import stream
from kd_env.types import Inputs

Purpose = Literal["measurement", "gradient", "reward_ce", "exam"]
"""Purpose of a draw. Each purpose has its own random numbers."""


class RewardSplit:
    """The labelled reward examples of each of S students.

    Attributes:
        positions: positions of the examples that a student may use, in the reward split, ``[S, n]``.
        label_seeds: seeds that chose these positions, one per student.
    """

    def __init__(self, data: EncodedTask, num_labels: int, label_seeds: Sequence[int]) -> None:
        """Choose ``num_labels`` examples for each student; 0 means all of them.

        Raises:
            InputError: ``num_labels`` is larger than the split.
        """
        self._inputs, self._labels, self._bank = data.inputs["reward"], data.labels["reward"], data.bank
        self.label_seeds = [int(seed) for seed in label_seeds]
        labels = self._labels.numpy()
        self.positions = np.stack([labelled_positions(labels, num_labels, seed) for seed in self.label_seeds])  # [S, n]

    @property
    def num_labels(self) -> int:
        """Number of labels of each student, n."""
        return int(self.positions.shape[1])

    @cached_property
    def teacher_temperatures(self) -> np.ndarray:
        """Temperatures of the teachers, fitted on the labelled reward examples of each student, ``[S, K]``."""
        logits, labels = self._bank.gather("reward", slice(None)).logits, self._labels.numpy()
        return np.stack([fit_temperatures(logits[positions], labels[positions]) for positions in self.positions])

    def of_student(self, student: int) -> RewardSplit:
        """Return the reward split of one student."""
        split = self.with_positions(self.positions[student : student + 1])
        split.label_seeds = self.label_seeds[student : student + 1]
        return split

    def with_positions(self, positions: np.ndarray) -> RewardSplit:
        """Return a split with other positions ``[S, n]``, one line per student; all get the label seed of the first."""
        split = copy.copy(self)
        split.__dict__.pop("teacher_temperatures", None)
        split.positions, split.label_seeds = positions, self.label_seeds[:1] * len(positions)
        return split

    def fold(self, number: np.ndarray, folds: int) -> RewardSplit:
        """Return the split with fold ``number % folds`` of each student (``[S]``): ``n // folds`` labels in proportion to the classes."""
        size = self.num_labels // folds
        first = number % folds * size
        return self.with_positions(
            np.stack([positions[start : start + size] for positions, start in zip(self.positions, first, strict=True)])
        )

    def draw(self, seeds: np.ndarray, purpose: Purpose, number: np.ndarray, count: int) -> np.ndarray:
        """Draw ``count`` positions for each student without replacement. Equal seeds, purposes and numbers give equal positions.

        Args:
            seeds: seeds of the students, ``[S]``.
            purpose: purpose of the draw.
            number: number of the draw, ``[S]``.
            count: number of positions per student.

        Returns:
            Positions in the reward split, ``[S * count]``, student 0 first.
        """
        size = self.num_labels
        if purpose != "reward_ce" and count == size:
            return self.positions.ravel()
        picks = [stream(int(seed), purpose, int(n)).choice(size, count, replace=False) for seed, n in zip(seeds, number, strict=True)]
        return np.concatenate([positions[pick] for positions, pick in zip(self.positions, picks, strict=True)])

    def at(self, positions: np.ndarray, device: torch.device | None = None) -> tuple[Inputs, Tensor]:
        """Return the inputs and labels of the reward examples at ``positions``, by default on the device that stores them."""
        device = device or self._labels.device
        return take(self._inputs, positions, device), self._labels[positions].to(device)


def labelled_positions(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the positions of ``count`` examples in proportion to the classes; 0 means all. A smaller count gives a prefix of a larger one.

    Raises:
        InputError: ``count`` is larger than the number of examples.
    """
    if count > len(labels):
        raise InputError(f"reward_labels={count}: the reward split has {len(labels)} examples; 0 means all of them")
    rng = stream(seed, "labels")
    sort_key = np.empty(len(labels))
    for value in np.unique(labels):
        positions = rng.permutation(np.flatnonzero(labels == value))
        sort_key[positions] = (np.arange(len(positions)) + rng.random(len(positions))) / len(positions)
    order = np.argsort(sort_key, kind="stable")
    return order[: count or len(labels)]
