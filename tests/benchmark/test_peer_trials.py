"""Trials whose student has peers: it alone is the product, what all cost is counted, and the record can be checked."""

import json

import numpy as np
import pyarrow.parquet
import pytest

from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError

SETTINGS = {"updates": 6, "student": "mlp(width=8)"}


def run_one(policy, folder, seed=0, **settings):
    trial = Trial("digits", policy, seed, settings=SETTINGS | settings)
    record = run_trial(trial, folder)
    records.append(folder, record)
    return trial, record


@pytest.mark.long
@pytest.mark.parametrize(("policy", "students"), [("mutual_learning", 2), ("peer_ensemble", 3), ("ctsl_mkt", 2)])
def test_all_students_cost_and_the_first_is_kept(policy, students, tmp_path):
    kept = []
    trial = Trial("digits", policy, 3, settings=SETTINGS)
    (record,) = run_trials([trial], tmp_path, lambda _: None, lambda _, run: kept.append(run))
    alone = run_trial(Trial("digits", "uniform", 3, settings=SETTINGS), tmp_path)
    (product,) = kept
    assert product.seeds.tolist() == [3]
    assert product.num_students == 1
    assert float(product.validate()[1][0]) == record["validation"]
    for name in ("student_forward_examples", "reward_forward_examples"):
        assert record[name] == students * alone[name], name
    assert record["teacher_forward_examples"] == alone["teacher_forward_examples"]
    assert record["env"]["num_students"] == students
    assert record["access"] == "student outputs"
    assert record["selection_rate"] == pytest.approx([0.25] * 4)
    assert record["curve"] != alone["curve"], "its peers taught it something"
    assert record["reward_labels"] == alone["reward_labels"]


def test_the_trace_holds_the_decisions_about_the_peers_too(tmp_path):
    trial, record = run_one("camkd", tmp_path, knowledge="response,peer", num_students=2)
    trace = read_trace(tmp_path / "traces" / f"{trial.id}.parquet")
    assert set(trace["slot"]) == set(range(64))
    first, peer = (trace[(trace["slot"] // 32) == number] for number in (0, 1))
    assert set(first["example_id"]) == set(peer["example_id"])
    assert not np.allclose(first["student_ce"], peer["student_ce"])
    rate = first.groupby("teacher")["weight"].sum() / (6 * 32)
    assert record["selection_rate"] == pytest.approx(rate.tolist(), abs=1e-6)


def test_peers_have_the_reward_labels_of_the_student_and_no_others(tmp_path):
    kept = []
    trial = Trial("digits", "mutual_learning", 5, settings=SETTINGS | {"reward_labels": 64})
    (record,) = run_trials([trial], tmp_path, lambda _: None, lambda _, run: kept.append(run))
    assert record["reward_labels"] == 64
    assert kept[0].reward_split.label_seeds == [5]
    env = make_env(trial)
    env.reset(seed=5)
    assert len(np.unique(env.distillation.reward_split.positions)) == 64


@pytest.mark.long
def test_whoever_touched_a_peer_is_found_out(tmp_path):
    trial, _ = run_one("mutual_learning", tmp_path)
    assert replay(tmp_path, trial.id) == []
    path = tmp_path / "traces" / f"{trial.id}.parquet"
    table = pyarrow.parquet.read_table(path)
    changed = table.to_pandas()
    changed.loc[(changed["update"] == 0) & (changed["slot"] == 40) & (changed["teacher"] == 0), "weight"] = 0.9
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(changed, schema=table.schema, preserve_index=False), path)
    (difference,) = replay(tmp_path, trial.id)[:1]
    assert "the student's cross-entropy differs" in difference


@pytest.mark.long
def test_the_command_needs_no_other_flag(tmp_path, capsys):
    command = ["run", "--task", "digits", "--policy", "mutual_learning", "--policy", "uniform", "--updates", "4", "--seeds", "0-1"]
    assert invoke([*command, "--population", "2", "--workers", "1", "--quiet", "--out", str(tmp_path)]) == 0
    by_trial = {(record["policy"], record["seed"]): record for record in records.read(tmp_path)}
    assert set(by_trial) == {(policy, seed) for policy in ("mutual_learning", "uniform") for seed in (0, 1)}
    assert "population" not in by_trial["mutual_learning", 0]["config"], "it is a population by itself"
    assert by_trial["uniform", 0]["config"]["population"] == 2
    alone = run_trial(Trial("digits", "mutual_learning", 1, settings={"updates": 4}), tmp_path / "alone")
    assert alone["test"] == by_trial["mutual_learning", 1]["test"]
    capsys.readouterr()
    assert invoke(["list", "policies", "--json"]) == 0
    assert {"mutual_learning", "peer_ensemble"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}


def test_students_who_do_not_teach_each_other_are_refused():
    trial = Trial("digits", "uniform", 0, settings={"num_students": 2})
    with pytest.raises(InputError, match=r"num_students=2: a trial keeps one student.*add --set knowledge=response,peer, or leave"):
        _ = trial.resolved
    with pytest.raises(InputError, match="with num_students=1 there are no other students"):
        make_env(Trial("digits", "mutual_learning", 0, settings={"num_students": 1}))
    with pytest.raises(InputError, match="population: a trial of policy 'mutual_learning' is a population already"):
        run_trials([Trial("digits", "mutual_learning", seed) for seed in (0, 1)], None, lambda _: None)


@pytest.mark.long
@pytest.mark.parametrize("policy", ["mutual_learning", "peer_ensemble", "ctsl_mkt"])
def test_it_teaches_text(policy, tmp_path):
    task = "domains(train=160,reward=48,validation=32,test=16)"
    settings = {"updates": 4, "student": "tiny-bert(width=8,layers=1,dropout=0.1)", "batch_size": 8}
    trial = Trial(task, policy, 0, "domains/experts", settings=settings)
    records.append(tmp_path, run_trial(trial, tmp_path))
    assert replay(tmp_path, trial.id) == []


@pytest.mark.long
def test_a_learner_may_teach_peers(tmp_path):
    trial, record = run_one("gradient_credit", tmp_path, knowledge="response,peer", num_students=2)
    assert record["access"] == "reward gradient"
    assert replay(tmp_path, trial.id) == []
