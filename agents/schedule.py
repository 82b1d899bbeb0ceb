"""Hyper-parameters that students can be taught with, and the entries of their schedules."""

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
    """Hyper-parameters, and the fraction of the budget from which they are used, in [0, 1)."""

    start: float
    hyperparameters: Hyperparameters

    @classmethod
    def of(cls, start: float, rule: str, strength: float, temperature: float) -> ScheduleEntry:
        """Return the entry with these numbers."""
        return cls(start, Hyperparameters(rule, strength, temperature))
