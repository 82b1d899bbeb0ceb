"""Plan a race by successive halving. In: the number of candidates, the updates of a student, a budget. Out: rungs.

At each rung the candidates that are left go on to a larger number of updates, until one is left and goes on to the end. A larger budget
first moves the rungs to later updates, where scores say more about the end, and then adds seeds for the candidates that are left.
After successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PLACES = (0.12, 0.28, 1.0)
"""Where the rungs are, as parts of a student's updates. Before a tenth of them scores say little: many students are still at chance."""
LEFT = (1.0, 0.35)
"""Part of the candidates at each rung but the last; at least two."""
SEEDS = ((1, 1, 1), (1, 2, 2), (2, 3, 3), (3, 5, 5))
"""Seeds of a candidate at each rung, from the cheapest race to the most expensive."""
EARLIEST, LATEST = 0.75, 3.0
"""Factors of :data:`PLACES` between which the budget moves the rungs."""
SHARED_COST = 0.25
"""Cost of one more student in a population, relative to a student taught alone; measured with small students on a CPU."""
USUAL = 2.0
"""Default budget, in updates of one student's run to the end."""


@dataclass(frozen=True)
class Rung:
    """One stage of a race.

    Attributes:
        until: number of updates that students have had at its end.
        left: number of candidates that take part.
        seeds: number of seeds of each of them.
    """

    until: int
    left: int
    seeds: int


@dataclass(frozen=True)
class Plan:
    """The rungs of a race, and the updates of a student that goes to the end."""

    rungs: tuple[Rung, ...]
    updates: int

    @property
    def taught(self) -> int:
        """Number of updates that all students of the race have together."""
        before, total = Rung(0, 0, 0), 0
        for rung in self.rungs:
            total += rung.left * (before.seeds * (rung.until - before.until) + (rung.seeds - before.seeds) * rung.until)
            before = rung
        return total


def plan(candidates: int, updates: int, budget: float, together: bool) -> Plan:
    """Return the plan that fits the budget best.

    Args:
        candidates: number of candidates.
        updates: updates of a student that goes to the end; fewer if the budget is too small for a race of them.
        budget: updates that may be spent, where a student that is taught in a population costs a part of one that is taught alone.
        together: whether the seeds of a candidate are taught as one population.
    """
    if candidates == 1:
        return Plan((Rung(max(1, min(updates, int(budget))), 1, 1),), max(1, min(updates, int(budget))))
    left = [max(2, round(part * candidates)) for part in LEFT] + [1]
    extra = SHARED_COST if together else 1.0
    for seeds in reversed(SEEDS):
        factor = _factor(left, seeds, budget / updates, extra)
        if factor >= EARLIEST:
            break
    else:
        updates, factor, seeds = max(len(PLACES), int(budget / _cost(left, SEEDS[0], EARLIEST, extra))), EARLIEST, SEEDS[0]
    untils = [max(number, round(place * updates)) for number, place in enumerate(_places(min(factor, LATEST)), start=1)]
    return Plan(tuple(Rung(*rung) for rung in zip(untils, left, seeds, strict=True)), updates)


def _places(factor: float) -> list[float]:
    return [min(1.0, factor * place) for place in PLACES[:-1]] + [1.0]


def _factor(left: Sequence[int], seeds: Sequence[int], budget: float, extra: float) -> float:
    """Return the factor of the places at which the cost, which is linear in it, is ``budget`` runs to the end."""
    at_one, at_zero = _cost(left, seeds, 1.0, extra), _cost(left, seeds, 0.0, extra)
    return (budget - at_zero) / (at_one - at_zero)


def _cost(left: Sequence[int], seeds: Sequence[int], factor: float, extra: float) -> float:
    """Return the cost of a race in runs of one student to the end."""
    cost, place, before = 0.0, 0.0, 0
    for candidates, number, until in zip(left, seeds, _places(factor), strict=True):
        stretch = until - place
        if before:
            cost += candidates * (1.0 + extra * (before - 1)) * stretch
            cost += candidates * extra * (number - before) * until
        else:
            cost += candidates * (1.0 + extra * (number - 1)) * stretch
        place, before = until, number
    return cost
