"""Time subjects side by side. In: subjects, each with the baseline it is compared to. Out: rows of medians and ratios.

The speed of a shared machine drifts by tens of per cent within a minute. So the subjects take turns, in alternating order, and a ratio is
the median over the turns of the ratio *within a turn*: a slow moment slows down both. Many short turns work better than few long ones.
"""

from __future__ import annotations

import argparse
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
"""Conversion from seconds for each unit of time."""


def at_least_one(text: str) -> int:
    """Return the whole number ``text``, which must be at least 1.

    Raises:
        argparse.ArgumentTypeError: it is something else; argparse prints the message.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return int(text)


@dataclass(frozen=True)
class Subject:
    """A piece of work to time.

    Attributes:
        name: name in the table.
        do: function that does one block of work; not needed where :func:`rows` is called with values that were measured elsewhere.
        count: units of work in a block; a whole number of periods if the work is periodic.
        against: name of the subject that is the baseline. Default: the first subject of the comparison.
    """

    name: str
    do: Callable[[], object] = lambda: None
    count: int = 1
    against: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        section: title of the section.
        what: name of the subject.
        unit: unit of the value.
        value: median over the turns, in ``unit``.
        ratio: median over the turns of ``value / value of the baseline``; ``None`` for a baseline.
        low: lower quartile of that ratio.
        high: upper quartile of that ratio.
        baseline: name of the baseline.
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
    """Time ``turns`` blocks of each subject in turns, after one warm-up block of each, and return the rows."""
    for subject in subjects:
        subject.do()
    seconds = np.empty((turns, len(subjects)))  # per unit of work
    for turn in range(turns):
        order = range(len(subjects))
        for index in order if turn % 2 == 0 else reversed(order):
            seconds[turn, index] = seconds_of(subjects[index].do) / subjects[index].count
    return rows(section, subjects, unit, np.vectorize(SECONDS[unit])(seconds))


def rows(section: str, subjects: Sequence[Subject], unit: Unit, values: np.ndarray) -> list[Row]:
    """Return the rows for ``values [turns, subjects]``, measured in ``unit``."""
    names = [subject.name for subject in subjects]
    table = []
    for index, subject in enumerate(subjects):
        against = subject.against or names[0]
        value = float(np.median(values[:, index]))
        if against == subject.name:
            table.append(Row(section, subject.name, unit, value))
            continue
        low, ratio, high = np.quantile(values[:, index] / values[:, names.index(against)], (0.25, 0.5, 0.75)).tolist()
        table.append(Row(section, subject.name, unit, value, ratio, low, high, against))
    return table


def clock() -> float:
    """Return seconds: CPU time of this process, so that waiting for a busy machine does not count. With CUDA, return wall time."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(do: Callable[[], object]) -> float:
    """Return the seconds that ``do`` takes, see :func:`clock`."""
    start = clock()
    do()
    return clock() - start
