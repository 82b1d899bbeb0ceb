"""Tables against hand-made records."""

import math

import pytest
from hand_made import record, runs, setting

from kd_env.benchmark.grouping import Setting, by_setting
from kd_env.benchmark.summary import best_rival, summarise
from kd_env.errors import InputError


def row(table, policy):
    return table[table["policy"] == policy].iloc[0]


@pytest.mark.parametrize("part", ["task", "teachers"])
def test_tasks_and_pools_of_one_name_are_told_apart(part):
    good, bad = ([record("uniform", "nothing", seed, test, env={part: name}, bank=name) for seed in range(2)] for name, test in NAMED)
    settings = by_setting([*good, *bad])
    assert [{r["test"] for r in records} for records in settings.values()] == [{0.9}, {0.1}]
    shown = [setting.task if part == "task" else setting.pool for setting in settings]
    assert shown == ["mine:good", "mine:bad"]
    same_bank = [r | {"bank": "one"} for r in (*good, *bad[:1])]
    assert len(by_setting(same_bank)) == 1, "two ways to write one task"


NAMED = (("mine:good", 0.9), ("mine:bad", 0.1))


def test_rows_are_sorted_by_access_then_name():
    assert summarise(setting())["policy"].tolist() == ["uniform", "entropy", "learner", "lr_dev(c=1)", "router", "oracle"]


def test_a_row_by_hand():
    learner = row(summarise(setting()), "learner")
    assert (learner.n, learner.pairs, learner.diverged) == (5, 5, 0)
    assert learner.test == pytest.approx(0.754)
    assert learner.gap == pytest.approx((0.35 * 3 + 0.36 * 2) / 5 / 0.4)
    assert learner.overfit == pytest.approx(0.8 - 0.754)
    assert learner.difference == pytest.approx(0.054)
    assert learner.difference_low == pytest.approx(0.054 - 2.7764 * math.sqrt(0.00003 / 5), abs=1e-6)
    assert (learner.wall_s, learner.student_forward_examples) == (2.0, 3200)


def test_only_policies_that_use_reward_labels_are_compared_with_the_rival():
    table = summarise(setting())
    assert table.loc[table["pairs"] > 0, "policy"].tolist() == ["learner", "lr_dev(c=1)"]
    assert table.loc[table["rival"], "policy"].tolist() == ["router"]


def test_the_rival_is_chosen_on_validation_and_matched_without_its_options():
    records = [record("router", "reward labels", 0, 0.9, validation=0.1), record("lr_dev(c=1)", "reward labels", 0, 0.2, validation=0.3)]
    assert best_rival(records) == "lr_dev(c=1)"
    assert best_rival([record("router_free", "reward labels", 0, 0.9)]) is None


def test_p_values_are_corrected_for_the_number_of_comparisons():
    alone = summarise([r for r in setting() if r["policy"] in ("router", "learner")])
    two = summarise([*setting(), *runs("worse", "reward scalar", 0.7, validation=0.1)])
    assert row(two, "learner").p > row(alone, "learner").p
    assert row(two, "worse").p == 1.0


def test_pairs_are_the_seeds_that_both_have():
    learners = [record("learner", "reward scalar", 4, 0.6), record("learner", "reward scalar", 9, 0.0)]
    learner = row(summarise([*runs("router", "reward labels", 0.5), *learners]), "learner")
    assert (learner.n, learner.pairs) == (2, 1)
    assert learner.difference == pytest.approx(0.6 - 0.48)
    assert math.isnan(learner.difference_low)


def test_no_gap_without_an_oracle_or_where_it_is_not_above_uniform():
    assert math.isnan(row(summarise([r for r in setting() if r["policy"] != "oracle"]), "learner").gap)
    upside_down = [r | ({"test": 0.1} if r["policy"] == "oracle" and r["seed"] == 2 else {}) for r in setting()]
    assert math.isnan(row(summarise(upside_down), "learner").gap)


@pytest.mark.parametrize("compared", ["learner", "uniform", "oracle"])
def test_the_gap_is_over_the_seeds_of_all_three_and_missing_if_one_diverged(compared):
    def gap(records, **changes):
        changed = [r | (changes if (r["policy"], r["seed"]) == (compared, 2) else {}) for r in records]
        return row(summarise(changed), "learner").gap

    without_seed = gap([r for r in setting() if r["seed"] != 2])
    assert without_seed == pytest.approx((0.35 * 2 + 0.36 * 2) / 4 / 0.4)
    assert gap([r for r in setting() if (r["policy"], r["seed"]) != (compared, 2)]) == without_seed
    assert gap(setting(), test=None) == without_seed, "its test was not evaluated"
    assert math.isnan(gap(setting(), test=None, diverged=True))
    other = "uniform" if compared != "uniform" else "oracle"
    fewer = [r for r in setting() if (r["policy"], r["seed"]) != (other, 2)]
    assert gap(fewer, test=None, diverged=True) == without_seed, "the seed is not of all three"


def test_records_of_two_settings_are_refused():
    with pytest.raises(
        InputError, match=r"policy 'uniform' has two records with seed 0; give the records of one setting, see .*by_setting"
    ):
        summarise([*setting(), record("uniform", "nothing", 0, 0.3, updates=200)])
    with pytest.raises(InputError, match="summarise: no records"):
        summarise([])


def test_a_rival_without_a_score_is_not_the_best():
    records = [record("router", "reward labels", 0, math.nan), record("stacking", "reward labels", 0, 0.2)]
    assert best_rival(records) == "stacking"
    assert best_rival(records[:1]) is None


def test_a_diverged_run_is_counted_and_not_averaged():
    records = setting()
    records[0] |= {"test": None, "validation": None, "reward_split": None, "diverged": True}
    uniform = row(summarise(records), "uniform")
    assert (uniform.n, uniform.diverged) == (4, 1)
    assert uniform.test == pytest.approx(0.4)


def test_settings_differ_by_labels_and_by_every_option_that_varies():
    strong = [record("uniform", "nothing", 0, 0.4), record("router", "reward labels", 0, 0.4)]
    weak = [record("uniform", "nothing", 0, 0.3, config={"kd_weight": 0.5, "command": "another"})]
    few = [record("uniform", "nothing", 0, 0.3, reward_labels=8)]
    groups = by_setting([*strong, *weak, *few])
    assert list(groups.values()) == [strong, weak, few]
    assert [s.options for s in groups] == [(("kd_weight", "1.0"),), (("kd_weight", "0.5"),), ()]


def test_policies_may_differ_in_what_they_are_paid_and_shown():
    """A policy chooses its own credit. Only one policy with two kinds of credit is in two settings."""
    first = {"kd_weight": 1.0, "credit": "first_order", "action": "one"}
    uniform, agent = record("uniform", "nothing", 0, 0.3), record("agent", "reward gradient", 0, 0.4, config=first)
    assert [group.options for group in by_setting([uniform, agent])] == [()]
    groups = by_setting([uniform, agent, record("agent", "reward gradient", 0, 0.4, config=first | {"credit": "head"})])
    assert [group.options for group in groups] == [(("credit", "null"),), (("credit", '"first_order"'),), (("credit", '"head"'),)]
    assert len(by_setting([uniform, agent, record("agent", "reward gradient", 0, 0.4, config=first | {"kd_weight": 0.5})])) == 2


def test_a_setting_names_what_is_set():
    options = (("kd_weight", "0.5"), ("knowledge", '"response,hint"'), ("observe_labels", "true"), ("temperature", "null"))
    assert str(Setting("digits", "digits/mixed", "mlp", 9, 64, options)) == (
        "digits, pool digits/mixed, student mlp, 9 updates, 64 reward labels, kd_weight=0.5, knowledge=response,hint, observe_labels=true"
    )


def test_a_run_that_two_suites_recorded_counts_once():
    again = [{**run, "suite": "other", "trial": f"{run['trial']}-again"} for run in setting()]
    (records,) = by_setting([*setting(), *again]).values()
    assert [run["trial"] for run in records] == [run["trial"] for run in again]
    assert set(summarise(records)["n"]) == {5}
