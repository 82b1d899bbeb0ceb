"""Means over seeds against values computed by hand."""

import math

import pandas as pd
import pytest
from scipy import stats
from small_traces import chosen

from kd_env.analysis.seeds import for_each_seed, over_seeds, read_traces
from kd_env.analysis.traces import selection_by_group
from kd_env.errors import InputError


def test_a_function_is_applied_to_each_seed():
    table = for_each_seed(selection_by_group, {0: chosen(0, 0), 5: chosen(1, 1)}, bins=1)
    assert table[table["teacher"] == 1][["seed", "group", "weight"]].to_numpy().tolist() == [[0, 0, 0], [0, 1, 0], [5, 0, 1], [5, 1, 1]]


def test_traces_of_several_policies_are_paired_by_seed():
    def lengths(first, second):
        return pd.DataFrame({"first": [len(first)], "second": [len(second)]})

    paired = for_each_seed(lengths, {0: chosen(0), 1: chosen(0, 0)}, {1: chosen(1, 1, 1), 2: chosen(1)})
    assert paired.to_dict("records") == [{"first": 2, "second": 3, "seed": 1}]
    with pytest.raises(InputError, match=r"no seed is in all of \[\[0\], \[1\]\]"):
        for_each_seed(lengths, {0: chosen(0)}, {1: chosen(0)})


def test_the_mean_has_a_t_interval():
    table = pd.DataFrame({"group": [0, 0, 0, 1], "seed": [0, 1, 2, 0], "weight": [0.1, 0.2, 0.6, 0.5]})
    result = over_seeds(table, "weight", ["group"])
    assert result.columns.tolist() == ["group", "weight", "low", "high", "n"]
    low, high = stats.t.interval(0.95, 2, loc=0.3, scale=stats.sem([0.1, 0.2, 0.6]))
    assert result.loc[0, ["weight", "low", "high", "n"]].tolist() == pytest.approx([0.3, low, high, 3])
    assert result.loc[1, ["weight", "n"]].tolist() == [0.5, 1]
    assert math.isnan(result.loc[1, "low"])


def test_without_columns_there_is_one_row():
    assert over_seeds(pd.DataFrame({"seed": [0, 1], "x": [1.0, 3.0]}), "x")["x"].tolist() == [2.0]


def test_rows_that_are_not_told_apart_are_refused():
    table = pd.DataFrame({"group": [0, 1], "seed": [0, 0], "x": [1.0, 2.0]})
    with pytest.raises(InputError, match="the same seed; name in `by`"):
        over_seeds(table, "x")


def test_traces_are_read_by_policy_and_seed(write, tmp_path):
    path = write([(0, 0, 0, 0, 1.0)])
    (tmp_path / "traces").mkdir()
    path.rename(tmp_path / "traces" / "t-0.parquet")
    record = {"policy": "uniform", "seed": 3, "trial": "t-0"}
    traces = read_traces(tmp_path, [record])
    assert {policy: list(of_policy) for policy, of_policy in traces.items()} == {"uniform": [3]}
    assert traces["uniform"][3]["weight"].tolist() == [1.0]
    with pytest.raises(InputError, match="two records with seed 3"):
        read_traces(tmp_path, [record, record])
