"""Trials on a pool whose teachers change midway: traces, records that replay, populations, and regret."""

import numpy as np
import pytest

from kd_env import tasks
from kd_env.analysis.selection_regret import BestTeachers, regret_by_update
from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay, trace_file
from kd_env.benchmark.run_trial import run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.teachers import load_pool, pool_recipes
from kd_env.teachers.teacher import Drift

UPDATES = 12


def trials(policy, *seeds):
    return [Trial("digits", policy, seed, "digits/drift", settings={"updates": UPDATES}, test=False) for seed in seeds]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    for policy in ("oracle", "single:0", "uniform", "gradient_credit"):
        records.append(folder, run_trial(*trials(policy, 2), folder))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("policy", ["oracle", "single:0", "uniform", "gradient_credit"])
def test_a_record_replays_through_the_change(folder, policy):
    (trial,) = trials(policy, 2)
    assert replay(folder, trial.id) == []


def test_regret_follows_the_change(folder):
    record = records.read(folder)[0]
    answer, groups = BestTeachers.of_record(record), tasks.load("digits").train.groups
    assert answer.change == 6
    regret = {
        policy: regret_by_update(read_trace(trace_file(folder, trials(policy, 2)[0].id)), answer)
        for policy in ("oracle", "single:0", "uniform")
    }
    assert regret["oracle"].tolist() == [0.0] * UPDATES
    assert regret["uniform"].tolist() == pytest.approx([0.75] * UPDATES)
    trace = read_trace(trace_file(folder, trials("single:0", 2)[0].id))
    known = np.where(trace["update"] < 6, groups[trace["example_id"]] == 0, groups[trace["example_id"]] == 1)
    assert regret["single:0"].tolist() == pytest.approx((1.0 - known.reshape(UPDATES, 32).mean(1)).tolist())


@pytest.mark.long
def test_a_population_changes_as_its_members_do(folder, tmp_path):
    together = run_trials(trials("oracle", 2, 3), tmp_path, lambda _: None)
    alone = records.read(folder)[0]
    assert together[0]["validation"] == pytest.approx(alone["validation"], abs=0.01)
    first, second = (read_trace(trace_file(path, alone["trial"])) for path in (folder, tmp_path))
    assert first[["update", "slot", "example_id", "teacher"]].equals(second[["update", "slot", "example_id", "teacher"]])


@pytest.mark.long
def test_a_record_of_another_change_is_not_taken_for_this_one(folder, monkeypatch):
    changed = pool_recipes.PoolRecipe("other", expert=pool_recipes.POOLS["digits/drift"].expert, drift=Drift(0.25, (1, 2, 3, 0)))
    monkeypatch.setitem(pool_recipes.POOLS, "digits/drift", changed)
    monkeypatch.setattr("kd_env.envs.make.load_pool", load_pool)
    with pytest.raises(InputError, match="the task or the teachers of pool 'digits/drift' have changed; make the record again"):
        replay(folder, trials("uniform", 2)[0].id)
