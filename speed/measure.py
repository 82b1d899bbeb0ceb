"""Timing side by side. In: things to do, each with what it is compared to. Out: rows of medians and ratios.

A machine that others use drifts by tens of per cent within a minute, so subjects take turns, in one direction and then the other, and a
ratio is the median over turns of *that turn's* ratio: what slows one down slows its neighbour down too. Many short turns do this better
than few long ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Unit = Literal["ms/update", "updates/s", "examples/s", "ms", "µs", "MB"]

SECONDS: dict[Unit, Callable[[float], float]] = {
    "ms/update": lambda seconds: seconds * 1e3,
    "updates/s": lambda seconds: 1.0 / seconds,
    "examples/s": lambda seconds: 1.0 / seconds,
    "ms": lambda seconds: seconds * 1e3,
    "µs": lambda seconds: seconds * 1e6,
}
"""What a time in seconds is in each unit of time."""


@dataclass(frozen=True)
class Subject:
    """Something to time.

    Attributes:
        do: one block of work.
        count: units of work in a block; a whole number of periods where the work has any.
        against: name of the subject its ratio is taken to; the first one of the comparison if empty.
    """

    name: str
    do: Callable[[], object]
    count: int = 1
    against: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        value: median over the turns, in ``unit``.
        ratio: median over the turns of ``value / baseline's value``; ``None`` for a baseline.
        low: lower quartile of that ratio.
        high: upper quartile of that ratio.
        baseline: what the ratio is to.
    """

    section: str
    what: str
    unit: str
    value: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: str = ""


def compare(section: str, subjects: Sequence[Subject], unit: Unit, turns: int) -> list[Row]:
    """Time ``turns`` blocks of each subject in turn, after one of warm-up."""
    for subject in subjects:
        subject.do()
    taken = np.empty((turns, len(subjects)))  # seconds a unit of work
    for turn in range(turns):
        order = range(len(subjects))
        for index in order if turn % 2 == 0 else reversed(order):
            taken[turn, index] = _seconds(subjects[index].do) / subjects[index].count
    return rows(section, subjects, unit, np.vectorize(SECONDS[unit])(taken))


def rows(section: str, subjects: Sequence[Subject], unit: Unit, values: np.ndarray) -> list[Row]:
    """Rows of ``values [turns, subjects]``, measured in ``unit``."""
    names = [subject.name for subject in subjects]
    made = []
    for index, subject in enumerate(subjects):
        against = subject.against or names[0]
        value = float(np.median(values[:, index]))
        if against == subject.name:
            made.append(Row(section, subject.name, unit, value))
            continue
        low, ratio, high = np.quantile(values[:, index] / values[:, names.index(against)], (0.25, 0.5, 0.75)).tolist()
        made.append(Row(section, subject.name, unit, value, ratio, low, high, against))
    return made


def clock() -> float:
    """Seconds: of this process on a CPU, so that waiting for a busy machine does not count; of the wall where CUDA works behind us."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(do: Callable[[], object]) -> float:
    start = clock()
    do()
    return clock() - start
