"""Which records of a folder are checked."""

from pathlib import Path

import pytest

from kd_env.benchmark.check import select


def written(policy):
    return [{"policy": policy, "seed": seed} for seed in (0, 1)]


def test_spellings_of_a_policy_are_one():
    records = written("reinforce(baseline=False,window=2)")
    assert select(Path("original"), records, ["reinforce(window=2, baseline=false)"], [1]) == [records[1]]
    assert select(Path("original"), records, [], []) == records


@pytest.mark.parametrize("name", ["reinforce(window=4), tuned 12", "scorer_credit(hold=0.2) from results/a, frozen"])
def test_names_that_only_reports_have_are_known(name):
    assert select(Path("original"), written(name), [name], []) == written(name)
