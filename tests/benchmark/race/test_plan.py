"""A race's plan fits its budget: early rungs for many candidates, late ones for few, more seeds for larger budgets."""

import pytest

from kd_env.benchmark.race.plan import SHARED_COST, Plan, Rung, plan


def cost(race, extra):
    """Return the cost in updates of a student taught alone, counted student by student."""
    total, before = 0.0, Rung(0, 0, 0)
    for rung in race.rungs:
        for number in range(rung.seeds):
            start = before.until if number < before.seeds else 0
            total += rung.left * (1.0 if number == 0 else extra) * (rung.until - start)
        before = rung
    return total


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("candidates", [2, 3, 5, 8, 9])
@pytest.mark.parametrize("runs", [2.0, 3.0, 5.0])
def test_the_cost_is_within_the_budget(candidates, runs, together):
    race = plan(candidates, 1000, runs * 1000, together)
    spent = cost(race, SHARED_COST if together else 1.0)
    assert spent <= 1.02 * runs * 1000
    assert race.updates == race.rungs[-1].until == 1000
    assert [rung.left for rung in race.rungs] == sorted((rung.left for rung in race.rungs), reverse=True)
    assert (race.rungs[0].left, race.rungs[-1].left) == (candidates, 1)
    assert [rung.until for rung in race.rungs] == sorted({rung.until for rung in race.rungs})


def test_updates_are_counted_by_hand():
    race = Plan((Rung(10, 4, 1), Rung(30, 2, 2), Rung(100, 1, 2)), 100)
    assert race.taught == 4 * 10 + 2 * (20 + 30) + 2 * 70


def test_a_larger_budget_adds_seeds_for_those_that_are_left():
    seeds = [[rung.seeds for rung in plan(8, 1000, runs * 1000, False).rungs] for runs in (2, 4, 8)]
    assert seeds == [[1, 1, 1], [1, 2, 2], [2, 3, 3]]


def test_a_budget_below_one_race_shortens_the_students():
    race = plan(8, 1000, 500, False)
    assert race.updates == race.rungs[-1].until < 300
    assert cost(race, 1.0) <= 1.05 * 500


def test_one_candidate_needs_no_race():
    assert plan(1, 100, 1000, False).rungs == (Rung(100, 1, 1),)
