"""All settings side by side."""

import pytest
from scipy import stats

from kd_env.benchmark.grouping import by_setting
from kd_env.benchmark.overview import overview, split_of_scores
from kd_env.benchmark.report import write_report
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


def test_scores_are_those_on_validation_if_no_trial_was_scored_on_test():
    untested = [
        record(policy, "a", 0, None) | {"validation": score, "diverged": False} for policy, score in (("uniform", 0.5), ("camkd", 0.7))
    ]
    for each in untested:
        each["config"] = {"test": False}
    assert split_of_scores(by_setting(untested)) == "validation"
    assert [row[3] for row in overview(by_setting(untested))[1]] == ["0.700", "0.500"]
    tested = [*untested, record("router", "b", 0, 0.9) | {"validation": 0.8}]
    assert split_of_scores(by_setting(tested)) == "test"
    assert [row[3:] for row in overview(by_setting(tested))[1]] == [["–", "–"], ["–", "0.900"], ["–", "–"]]


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


@pytest.mark.long
def test_one_setting_has_no_table_of_all_settings(tmp_path):
    assert invoke(["run", "--task", "digits", "--policy", "uniform", "--updates", "2", "--seeds", "0", "--out", str(tmp_path)]) == 0
    assert "All settings" not in write_report(tmp_path).with_suffix(".md").read_text()


def test_a_column_names_the_task_if_its_pool_does_not():
    tasks_and_pools = [("digits", "digits/experts"), ("domains(difficulty=0.5)", "domains/experts"), ("folder:mine", "text/sizes")]
    records = [{**record("uniform", pool, 0, 0.5), "task": task} for task, pool in tasks_and_pools]
    assert overview(by_setting(records))[0][3:] == ["digits/experts", "domains/experts", "folder:mine, text/sizes"]
    assert overview(by_setting(records[2:]))[0][3:] == ["text/sizes"]


def test_columns_of_one_pool_name_what_differs():
    run = {**record("uniform", "digits/drift", 0, 0.5), "updates": 10, "reward_labels": 64}
    ce = [{**run, "config": {**run["config"], "reward_ce": value}} for value in (0, 1)]
    fewer, other = {**ce[0], "reward_labels": 32}, {**run, "pool": "digits/experts"}
    names = overview(by_setting([*ce, fewer, other]))[0][3:]
    assert names == [
        "digits/drift, 64 reward labels, reward_ce=0",
        "digits/drift, 64 reward labels, reward_ce=1",
        "digits/drift, 32 reward labels",
        "digits/experts",
    ]
