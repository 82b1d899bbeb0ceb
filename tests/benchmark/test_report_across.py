"""The comparison of policies over the settings of a report."""

import numpy as np
import pytest
from hand_made import record, runs, setting

from kd_env.analysis.palette import policy_styles
from kd_env.benchmark.aggregates import iqm_over_settings
from kd_env.benchmark.grouping import by_setting
from kd_env.benchmark.records import append
from kd_env.benchmark.report import write_report
from kd_env.benchmark.report_across import compare_across


def settings(count, means):
    """Records of some settings, in which policies have some mean scores."""
    return [
        run | {"updates": 100 + number, "trial": f"{number}-{run['trial']}"}
        for number in range(count)
        for policy, mean in means.items()
        for run in runs(policy, "nothing", mean + 0.01 * number)
    ]


def across(records):
    return compare_across(by_setting(records), policy_styles(each["policy"] for each in records))


def test_the_table_has_the_policies_of_all_settings_by_their_iqm():
    records = settings(3, {"uniform": 0.4, "better": 0.6, "worse": 0.2})
    records += [run | {"updates": 100} for run in runs("once", "nothing", 0.9)]
    records += [run | {"updates": 100 + number} for number in range(3) for run in runs("oracle", "privileged", 0.95)]
    comparison = across(records)
    assert [row[0] for row in comparison.table.rows] == ["better", "uniform", "worse"]
    middle = iqm_over_settings([np.array([run["test"] for run in records if run["policy"] == "better"])])
    assert comparison.table.rows[0][2].startswith(f"{middle.value:.3f} [")
    assert [row[3] for row in comparison.table.rows] == ["1.00", "2.00", "3.00"]
    assert [row[4] for row in comparison.table.rows] == ["1.000 [1.000, 1.000]", "–", "0.000 [0.000, 0.000]"]
    assert [row[5] for row in comparison.table.rows] == ["15"] * 3
    assert "policies left out: 1" in comparison.table.caption


@pytest.mark.parametrize(("count", "tested"), [(4, False), (5, True)])
def test_ranks_are_tested_from_five_settings(count, tested):
    comparison = across(settings(count, {"a": 0.4, "b": 0.6, "c": 0.2}))
    assert [plot.name for plot in comparison.plots] == ["00-profiles", "00-ranks"]
    assert ("Nemenyi" in comparison.plots[1].caption) == tested
    assert ("fewer than 5 settings" in comparison.plots[1].caption) != tested


def test_there_is_nothing_to_compare_in_one_setting_or_of_one_policy():
    assert across(setting()) is None
    assert across(settings(2, {"a": 0.4})) is None
    untested = [record("b", "nothing", 0, 0.5, updates=updates) | {"test": None} for updates in (100, 101)]
    assert across([*settings(2, {"a": 0.4}), *untested]) is None


@pytest.mark.long
def test_both_reports_show_it(tmp_path):
    append(tmp_path, *settings(2, {"uniform": 0.4, "better": 0.6}))
    page = write_report(tmp_path)
    for text in ((tmp_path / "report.md").read_text(), page.read_text()):
        assert "Across settings" in text
        assert "P(above uniform)" in text
    assert (tmp_path / "figures" / "00-profiles.png").exists()
    assert (tmp_path / "figures" / "00-ranks.png").exists()


def test_the_caption_says_what_the_iqm_mixes():
    records = settings(3, {"uniform": 0.4, "better": 0.6})
    plain = across(records).table.caption
    assert "metrics" not in plain
    assert "numbers of runs" not in plain
    two_metrics = across([run | ({"metric": "mcc"} if run["updates"] == 101 else {}) for run in records]).table.caption
    assert "The settings have different metrics (accuracy, mcc), which the IQM mixes" in two_metrics
    fewer = across([run for run in records if (run["policy"], run["updates"]) != ("better", 101) or run["seed"] < 2]).table.caption
    assert "Policies have different numbers of runs in a setting" in fewer
