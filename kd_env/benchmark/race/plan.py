"""Plan a race by successive halving. In: the number of candidates, the updates of a student, a budget. Out: rungs.

A rung is a number of updates. Every candidate is taught to the first rung; the best of them go on to the next one, until one is left and is
taught to the end. A larger budget first moves the rungs to later updates, where scores predict the final score better, and then adds seeds
for the candidates that are left. After successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kd_env.errors import InputError

UPDATE_FRACTIONS = (0.08, 0.4, 1.0)
"""Fraction of a student's updates at each rung. The last comparison, of the student without a teacher and the best with teachers, is late:
students of teachers learn faster at first, and an early lead may not last."""
LATEST = 0.9
"""Largest fraction of the updates before the last rung."""
CANDIDATE_FRACTIONS = (1.0, 0.35)
"""Fraction of the candidates at each rung but the last, which has one; at least two candidates."""
SEEDS = ((1, 1, 1), (1, 2, 2), (2, 3, 3), (3, 5, 5))
"""Seeds of a candidate at each rung, from the cheapest race to the most expensive."""
MIN_SCALE, MAX_SCALE = 0.7, 3.0
"""Bounds of the factor by which the budget scales :data:`UPDATE_FRACTIONS`."""
POPULATION_COST = 0.25
"""Cost of one more student in a population, relative to a student taught alone; measured with small students on a CPU."""
DEFAULT_BUDGET = 2.0
"""Default budget, in full runs of one student."""


@dataclass(frozen=True)
class Rung:
    """One level of a race.

    Attributes:
        updates: number of updates that a student has had at its end.
        candidates: number of candidates that take part.
        seeds: number of seeds of each candidate.
    """

    updates: int
    candidates: int
    seeds: int


@dataclass(frozen=True)
class Plan:
    """The rungs of a race, and the updates of a student that is taught to the end."""

    rungs: tuple[Rung, ...]
    updates: int

    @property
    def total_updates(self) -> int:
        """Sum of the updates of all students of the race."""
        previous, total = Rung(0, 0, 0), 0
        for rung in self.rungs:
            continued, added = previous.seeds, rung.seeds - previous.seeds
            total += rung.candidates * (continued * (rung.updates - previous.updates) + added * rung.updates)
            previous = rung
        return total


def make_plan(candidates: int, updates: int, budget: float, as_population: bool, extra_cost: float = 0.0, warmup: float = 0.0) -> Plan:
    """Return the most expensive plan that the budget allows.

    Args:
        candidates: number of candidates.
        updates: updates of a student that is taught to the end. They are reduced if the budget is too small for the cheapest plan.
        budget: cost that is allowed, in updates of a student that is taught alone.
        as_population: whether the seeds of a candidate are taught as one population, where each further student costs
            :data:`POPULATION_COST`.
        extra_cost: cost of slow candidates beyond that of others, in candidates. It is counted at the first rung, which all take part in.
        warmup: fraction of the updates over which the learning rate rises. No rung ends before, since little is learned until then; with
            a long warm-up this makes the cheapest plan more expensive.

    Raises:
        InputError: several candidates have fewer updates than a race has rungs.
    """
    if candidates > 1 and updates < len(UPDATE_FRACTIONS):
        raise InputError(f"updates={updates}: a race needs at least {len(UPDATE_FRACTIONS)}, one for each of its rungs")
    if candidates == 1:
        updates = max(1, min(updates, int(budget)))
        return Plan((Rung(updates, 1, 1),), updates)
    counts = [max(2, round(fraction * candidates)) for fraction in CANDIDATE_FRACTIONS] + [1]
    costs = [counts[0] + extra_cost, *counts[1:]]
    extra, min_scale = POPULATION_COST if as_population else 1.0, max(MIN_SCALE, warmup / UPDATE_FRACTIONS[0])
    for seeds in reversed(SEEDS):
        scale = _scale(costs, seeds, budget / updates, extra)
        if scale >= min_scale:
            break
    else:
        seeds, scale = SEEDS[0], min_scale
        updates = max(len(UPDATE_FRACTIONS), int(budget / _cost(costs, seeds, scale, extra)))
    fractions = _update_fractions(max(min_scale, min(scale, MAX_SCALE)))
    ends = [max(number, round(fraction * updates)) for number, fraction in enumerate(fractions, start=1)]
    return Plan(tuple(Rung(*rung) for rung in zip(ends, counts, seeds, strict=True)), updates)


def _update_fractions(scale: float) -> list[float]:
    return [min(LATEST, scale * fraction) for fraction in UPDATE_FRACTIONS[:-1]] + [1.0]


def _scale(costs: Sequence[float], seeds: Sequence[int], budget: float, extra: float) -> float:
    """Return the scale at which a race costs ``budget`` full runs. The cost is linear in the scale."""
    at_one, at_zero = _cost(costs, seeds, 1.0, extra), _cost(costs, seeds, 0.0, extra)
    return (budget - at_zero) / (at_one - at_zero)


def _cost(costs: Sequence[float], seeds: Sequence[int], scale: float, extra: float) -> float:
    """Return the cost of a race in full runs of one student.

    Args:
        costs: cost of one update of all candidates of each rung, in updates of one student.
        seeds: number of seeds at each rung.
        scale: factor of :data:`UPDATE_FRACTIONS`.
        extra: cost of each further student of a candidate, relative to its first.
    """
    cost, previous_end, previous_seeds = 0.0, 0.0, 0
    for candidates, number, end in zip(costs, seeds, _update_fractions(scale), strict=True):
        if previous_seeds:
            cost += candidates * (1.0 + extra * (previous_seeds - 1)) * (end - previous_end)
            cost += candidates * extra * (number - previous_seeds) * end
        else:
            cost += candidates * (1.0 + extra * (number - 1)) * (end - previous_end)
        previous_end, previous_seeds = end, number
    return cost
