"""Settings that students can be taught with, and schedules of them. In: settings. Out: the parts of a schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hyperparameters:
    """What a member is taught with: a rule, and factors of the strengths and of the temperature in the settings of the environment."""

    rule: str
    strength: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True)
class ScheduleEntry:
    """A setting, and the part of the budget from which it is used, in [0, 1)."""

    start: float
    setting: Hyperparameters

    @classmethod
    def of(cls, start: float, rule: str, strength: float, temperature: float) -> ScheduleEntry:
        """Return the stage with these numbers."""
        return cls(start, Hyperparameters(rule, strength, temperature))
