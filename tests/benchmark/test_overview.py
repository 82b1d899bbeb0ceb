"""All settings side by side, and suites of several parts."""

import pytest
from scipy import stats

from kd_env.benchmark import suites
from kd_env.benchmark.overview import overview
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.records import read
from kd_env.benchmark.report import write_report
from kd_env.benchmark.run import run
from kd_env.benchmark.suites import Part, Suite
from kd_env.benchmark.summary import by_setting
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.policies import registry


def record(policy, pool, seed, test, access="nothing", population=None):
    config = {} if population is None else {"population": population}
    return {
        "task": "t",
        "pool": pool,
        "student": "s",
        "updates": 1,
        "reward_labels": 9,
        "policy": policy,
        "access": access,
        "seed": seed,
        "test": test,
        "diverged": test is None,
        "config": config,
    }


def test_cells_hold_mean_half_width_and_the_paired_difference_to_uniform():
    records = [record("uniform", "a", seed, 0.5 + 0.01 * seed) for seed in range(3)]
    records += [record("camkd", "a", seed, 0.7 + 0.01 * seed, "train labels", population=3) for seed in range(3)]
    records += [record("uniform", "b", 0, 0.5), record("uniform", "b", 1, 0.52)]
    records += [record("camkd", "b", 0, None, "train labels"), record("camkd", "b", 1, None, "train labels")]
    records += [record("my:Policy", "b", seed, 0.4 + 0.02 * seed) for seed in range(2)]
    head, rows = overview(by_setting(records))
    assert head == ["access", "policy", "paper", "a", "b"], "the size of a population does not separate settings"
    half = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert rows == [
        ["nothing", "my:Policy", "–", "–", f"0.410 ± {stats.t.ppf(0.975, 1) * 0.01:.3f} (−0.100 ▼)"],
        ["", "uniform", "–", f"0.510 ± {half:.3f}", f"0.510 ± {stats.t.ppf(0.975, 1) * 0.01:.3f}"],
        ["train labels", "camkd", registry.find("camkd").paper, f"0.710 ± {half:.3f} (+0.200 ▲)", "2 diverged"],
    ]


def test_one_seed_has_no_interval():
    assert overview(by_setting([record("uniform", "a", 0, 0.5)]))[1] == [["nothing", "uniform", "–", "0.500"]]


def test_a_difference_whose_interval_holds_zero_has_no_mark():
    records = [record("uniform", "a", seed, 0.5) for seed in range(3)]
    records += [record("camkd", "a", seed, score) for seed, score in enumerate((0.4, 0.5, 0.7))]
    (cells,) = [row for row in overview(by_setting(records))[1] if row[1] == "camkd"]
    assert "▲" not in cells[3], "the mean is +.033, the half-width is far larger"
    assert "(+0.033)" in cells[3]


@pytest.mark.parametrize("name", suites.SUITES)
def test_suites_name_existing_policies_and_pools(name):
    for part in suites.SUITES[name].parts:
        assert len(set(part.policies)) == len(part.policies)
        for trial in part.trials(name, [0], ""):
            assert part.updates in (None, trial.resolved.settings.updates)


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


def test_one_setting_has_no_table_of_all_settings(tmp_path):
    assert invoke(["run", "--task", "digits", "--policy", "uniform", "--updates", "2", "--seeds", "0", "--out", str(tmp_path)]) == 0
    assert "All settings" not in write_report(tmp_path).with_suffix(".md").read_text()


@pytest.mark.parametrize("policy", [name for name in suites.SYSTEMS if not name.startswith(("sb3", "akd"))])
def test_every_system_trains_two_seeds_as_a_population_or_declares_that_it_runs_alone(policy, tmp_path):
    trials = [Trial("digits", policy, seed, settings={"updates": 1, "validation_every": 1}) for seed in (0, 1)]
    run(trials, tmp_path, Progress(quiet=True), population=2)
    assert [record["seed"] for record in read(tmp_path)] == [0, 1]
    alone = registry.find(policy).alone or trials[0].resolved.settings.num_students > 1
    assert all(("population" in record["config"]) != alone for record in read(tmp_path))


def test_a_column_names_the_task_if_its_pool_does_not():
    tasks_and_pools = [("digits", "digits/experts"), ("domains(difficulty=0.5)", "domains/experts"), ("folder:mine", "text/sizes")]
    records = [{**record("uniform", pool, 0, 0.5), "task": task} for task, pool in tasks_and_pools]
    assert overview(by_setting(records))[0][3:] == ["digits/experts", "domains/experts", "folder:mine, text/sizes"]
    assert overview(by_setting(records[2:]))[0][3:] == ["text/sizes"]
