"""Define the setting ``block_swap``: how probable it is that a teacher's block takes the place of a student's, from update to update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from kd_env import spec
from kd_env.student.optimizer import STEPS


class SwapSchedule(Protocol):
    """A schedule of the probability of a swap."""

    @property
    def teacher(self) -> int:
        """Index of the teacher that has the blocks."""
        ...

    def probability(self, progress: float, depth: float) -> float:
        """Return the probability at ``progress`` in [0, 1) of the budget for the block at ``depth`` in (0, 1] of the student."""
        ...


@dataclass(frozen=True)
class Uniform:
    """The same probability ``p`` for all blocks and updates."""

    p: float = 0.5
    teacher: int = 0

    def probability(self, progress: float, depth: float) -> float:
        """Return ``p``."""
        return self.p


@dataclass(frozen=True)
class Linear:
    """A probability that changes linearly from ``start`` at the first update to ``end`` at the last, so that the student's part grows.

    Attributes:
        start: probability at the start.
        end: probability at the end.
        by_depth: whether block l of n has the part l / n of it: blocks near the output are replaced more often.
        teacher: index of the teacher that has the blocks.
    """

    start: float = 0.9
    end: float = 0.0
    by_depth: bool = False
    teacher: int = 0

    def probability(self, progress: float, depth: float) -> float:
        """Return the linear function of progress."""
        value = self.start + (self.end - self.start) * progress
        return value * depth if self.by_depth else value


@dataclass(frozen=True)
class Review:
    """The linear change in each stage of the learning rate; with each new stage it starts again, so that the student reviews.

    Attributes:
        start: probability at the start of a stage.
        end: probability at its end.
        stages: number of equal stages; 0 for those of ``decay=steps``, at epochs 150, 180 and 210 of 240.
        teacher: index of the teacher that has the blocks.
    """

    start: float = 0.9
    end: float = 0.0
    stages: int = 0
    teacher: int = 0

    def probability(self, progress: float, depth: float) -> float:
        """Return the linear function of the progress within the stage."""
        inner = STEPS if self.stages == 0 else tuple(number / self.stages for number in range(1, self.stages))
        edges = (0.0, *inner, 1.0)
        first, last = next((edge for edge in pairwise(edges) if progress < edge[1]), edges[-2:])
        return self.start + (self.end - self.start) * (progress - first) / (last - first)


SCHEDULES: Mapping[str, type[Uniform] | type[Linear] | type[Review]] = {"uniform": Uniform, "linear": Linear, "review": Review}
"""Schedules by name."""


def parse_schedule(text: str) -> SwapSchedule:
    """Return the schedule that ``block_swap`` names, such as ``review(start=0.9,teacher=0)``.

    Raises:
        InputError: the schedule or an option is unknown, or an option is out of range.
    """
    name, options = spec.parse(text)
    if name not in SCHEDULES:
        raise spec.unknown("block_swap", name, SCHEDULES)
    schedule: Uniform | Linear | Review = spec.call(f"block_swap={text!r}", SCHEDULES[name], options)
    spec.numbers(name, least=0, whole=True, teacher=schedule.teacher)
    match schedule:
        case Uniform():
            spec.numbers(name, least=0, most=1, p=schedule.p)
        case Linear():
            spec.numbers(name, least=0, most=1, start=schedule.start, end=schedule.end)
            spec.one_of(name, False, True, by_depth=schedule.by_depth)
        case Review():
            spec.numbers(name, least=0, most=1, start=schedule.start, end=schedule.end)
            spec.numbers(name, least=0, most=1000, whole=True, stages=schedule.stages)
    return schedule
