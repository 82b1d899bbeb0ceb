"""Suites of several parts, and the policies that they name."""

import pytest

from kd_env.benchmark import suites
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.records import read
from kd_env.benchmark.run import run
from kd_env.benchmark.suites import Part, Suite
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.policies import registry


@pytest.mark.parametrize("name", suites.SUITES)
def test_suites_name_existing_policies_and_pools(name):
    for part in suites.SUITES[name].parts:
        assert len(set(part.policies)) == len(part.policies)
        for trial in part.trials(name, [0], ""):
            assert part.updates in (None, trial.resolved.settings.distillation.updates)


def test_a_suite_runs_its_parts_into_one_folder_and_resumes(monkeypatch, tmp_path, capsys):
    small = Suite("small", (Part("digits", ("uniform", "single:1"), None, 3, 2), Part("digits", ("uniform",), "digits/mixed", 3)), range(2))
    monkeypatch.setitem(suites.SUITES, "small", small)
    assert invoke(["bench", "small", "--out", str(tmp_path), "--workers", "1"]) == 0
    records = read(tmp_path)
    assert [(r["pool"], r["policy"], r["seed"]) for r in records] == [
        ("digits/experts", "uniform", 0),
        ("digits/experts", "uniform", 1),
        ("digits/experts", "single:1", 0),
        ("digits/experts", "single:1", 1),
        ("digits/mixed", "uniform", 0),
        ("digits/mixed", "uniform", 1),
    ]
    assert "## All settings" in (tmp_path / "report.md").read_text()
    assert "<h2>All settings</h2>" in (tmp_path / "report.html").read_text()
    assert invoke(["bench", "small", "--out", str(tmp_path), "--seeds", "0-2", "--workers", "1"]) == 0
    assert len(read(tmp_path)) == 9, "finished trials are not run again"
    assert invoke(["bench", "nothing", "--out", str(tmp_path)]) == 2
    assert "unknown suite 'nothing'" in capsys.readouterr().err


@pytest.mark.usefixtures("fit_stacks_once")
@pytest.mark.parametrize("policy", [name for name in suites.SYSTEMS if not name.startswith(("sb3", "akd"))])
def test_every_system_trains_two_seeds_as_a_population_or_declares_that_it_runs_alone(policy, tmp_path):
    trials = [Trial("digits", policy, seed, settings={"updates": 1, "validation_every": 1, "reward_labels": 32}) for seed in (0, 1)]
    run(trials, tmp_path, Progress(quiet=True), population=2)
    assert [record["seed"] for record in read(tmp_path)] == [0, 1]
    policy_class, students = registry.find(policy), trials[0].resolved.settings.distillation.num_students
    alone = policy_class.owns_loop or not policy_class.supports_population or students > 1
    assert all(("population" in record["config"]) != alone for record in read(tmp_path))
