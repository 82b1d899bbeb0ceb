"""Declare what may be tuned of a policy. ``kd-env bench --tune`` searches what a policy's class names in its ``search_space``.

The keys are options of the class or settings of the environment. Such a setting then applies to this policy only::

    search_space: ClassVar[SearchSpace] = {"learning_rate": Range(1e-4, 1e-2, log=True), "window": Range(1, 8)}

What all policies share, such as the temperature, need not be named: see :mod:`kd_env.benchmark.tuning.space`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kd_env.errors import InputError


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole numbers if both ends are.

    Attributes:
        low: the smallest number.
        high: the largest number.
        log: whether equal factors are equally likely, rather than equal differences.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check the ends."""
        ends_are_numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in (self.low, self.high))
        if not ends_are_numbers or not self.low < self.high or (self.log and self.low <= 0):
            raise InputError(f"{self}: expected low < high, and with log low > 0")

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def including(self, value: float) -> Range:
        """Return a range that also holds ``value``, and then numbers that are not whole if ``value`` is not."""
        kind = int if self.whole and value == int(value) else float
        return Range(kind(min(self.low, value)), kind(max(self.high, value)), self.log)


@dataclass(frozen=True)
class Choice:
    """One of some values, which are texts, numbers or truth values."""

    values: tuple[str | float | bool, ...]

    def __post_init__(self) -> None:
        """Check that there is something to choose from."""
        kinds = str | int | float
        usable = isinstance(self.values, tuple) and all(isinstance(value, kinds) and value == value for value in self.values)  # not NaN
        if not usable or len(set(self.values)) < 2:
            raise InputError(f"{self}: expected a tuple of at least two values, which are texts, numbers or truth values")

    def including(self, value: str | float | bool) -> Choice:
        """Return a choice that also has ``value``, first if it is new."""
        return self if value in self.values else Choice((value, *self.values))


SearchSpace = Mapping[str, Range | Choice]
"""What is searched, by name."""
