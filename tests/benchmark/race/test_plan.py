"""The plan of a race fits its budget: early rungs for many candidates, late ones for few, more seeds for larger budgets."""

import pytest

from kd_env.benchmark.race.plan import POPULATION_COST, Plan, Rung, make_plan
from kd_env.errors import InputError


def cost(plan, extra):
    """Return the cost in updates of a student taught alone, counted student by student."""
    total, previous = 0.0, Rung(0, 0, 0)
    for rung in plan.rungs:
        for number in range(rung.seeds):
            start = previous.updates if number < previous.seeds else 0
            total += rung.candidates * (1.0 if number == 0 else extra) * (rung.updates - start)
        previous = rung
    return total


@pytest.mark.parametrize("as_population", [False, True])
@pytest.mark.parametrize("candidates", [2, 3, 5, 8, 9])
@pytest.mark.parametrize("runs", [2.0, 3.0, 5.0])
def test_the_cost_is_within_the_budget(candidates, runs, as_population):
    plan = make_plan(candidates, 1000, runs * 1000, as_population)
    spent = cost(plan, POPULATION_COST if as_population else 1.0)
    assert spent <= 1.02 * runs * 1000
    assert plan.updates == plan.rungs[-1].updates == 1000
    assert [rung.candidates for rung in plan.rungs] == sorted((rung.candidates for rung in plan.rungs), reverse=True)
    assert (plan.rungs[0].candidates, plan.rungs[-1].candidates) == (candidates, 1)
    assert [rung.updates for rung in plan.rungs] == sorted({rung.updates for rung in plan.rungs})


def test_slow_candidates_are_part_of_the_budget():
    plan = make_plan(7, 1000, 2000, False, extra_cost=1.6)
    spent = cost(plan, 1.0) + 1.6 * plan.rungs[0].updates
    assert 0.98 * 2000 <= spent <= 1.02 * 2000
    assert plan.rungs[0].updates < make_plan(7, 1000, 2000, False).rungs[0].updates


@pytest.mark.parametrize("warmup", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("runs", [2.0, 5.0])
def test_no_rung_ends_before_the_warm_up(warmup, runs):
    plan = make_plan(7, 1000, runs * 1000, False, 2.0, warmup)
    assert plan.rungs[0].updates >= round(warmup * plan.updates)
    assert cost(plan, 1.0) + 2.0 * plan.rungs[0].updates <= 1.02 * runs * 1000
    assert (plan == make_plan(7, 1000, runs * 1000, False, 2.0)) == (warmup == 0.05)


def test_updates_are_counted_by_hand():
    plan = Plan((Rung(10, 4, 1), Rung(30, 2, 2), Rung(100, 1, 2)), 100)
    assert plan.total_updates == 4 * 10 + 2 * (20 + 30) + 2 * 70


def test_a_larger_budget_adds_seeds_for_those_that_are_left():
    seeds = [[rung.seeds for rung in make_plan(8, 1000, runs * 1000, False).rungs] for runs in (2, 4, 8)]
    assert seeds == [[1, 1, 1], [1, 2, 2], [2, 3, 3]]


def test_a_budget_below_one_race_shortens_the_students():
    plan = make_plan(8, 1000, 500, False)
    assert plan.updates == plan.rungs[-1].updates < 300
    assert cost(plan, 1.0) <= 1.05 * 500


def test_one_candidate_needs_no_race():
    assert make_plan(1, 100, 1000, False).rungs == (Rung(100, 1, 1),)


@pytest.mark.parametrize("updates", [1, 2])
def test_fewer_updates_than_rungs_are_refused(updates):
    with pytest.raises(InputError, match=f"updates={updates}: a race needs at least 3"):
        make_plan(8, updates, 1000.0, as_population=True)
    assert make_plan(1, updates, 1000.0, as_population=True).updates == updates
