"""Regret and recovery of hand-made traces, and of traces of built-in pools."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from kd_env import tasks
from kd_env.analysis.figures import regret_figure
from kd_env.analysis.selection_regret import BestTeachers, recovery_updates, regret_by_update, regret_curve, regret_table
from kd_env.errors import InputError
from kd_env.teachers import POOLS
from kd_env.teachers.best_teachers import best_teachers

STATIC = BestTeachers(np.array([0, 1]), None, np.array([0, 1]))
"""Two examples; the best teacher of the first is 0, of the second 1."""


def make_trace(rows):
    """Rows are (update, slot, example_id, teacher, weight)."""
    return pd.DataFrame(rows, columns=["update", "slot", "example_id", "teacher", "weight"])


def changing(updates, change):
    """The best teacher of both examples is 0, and from ``change`` on 1."""
    return BestTeachers(np.array([0, 0]), change, np.array([1, 1])), range(updates)


def follow(updates, weight_on_second):
    """One decision per update, with the given weight on teacher 1 and the rest on teacher 0."""
    rows = []
    for update in range(updates):
        second = weight_on_second(update)
        rows += [(update, 0, update % 2, teacher, weight) for teacher, weight in ((0, 1.0 - second), (1, second)) if weight > 0]
    return make_trace(rows)


def test_regret_is_one_minus_the_weight_on_the_best_teacher():
    trace = make_trace(
        [
            (0, 0, 0, 0, 1.0),  # right
            (0, 1, 1, 0, 0.5),  # half
            (0, 1, 1, 1, 0.5),
            (1, 0, 1, 0, 1.0),  # wrong
            (1, 1, 0, -1, 0.0),  # nobody
            (2, 0, 1, 1, 0.75),
            (2, 0, 1, 2, 0.25),
        ]
    )
    assert regret_by_update(trace, STATIC).to_dict() == {0: 0.25, 1: 1.0, 2: 0.25}
    assert regret_curve(trace, STATIC, bins=1).to_dict() == {1.0: 0.5}


def test_the_best_teacher_changes_at_the_update_of_the_change():
    answer, _ = changing(100, 50)
    trace = follow(100, lambda update: 0.0)
    regret = regret_by_update(trace, answer)
    assert regret[:50].tolist() == [0.0] * 50
    assert regret[50:].tolist() == [1.0] * 50


@pytest.mark.parametrize(("at", "updates", "change"), [(0.07, 100, 7), (0.55, 100, 55), (0.5, 5, 3)])
def test_the_change_is_the_first_update_at_which_the_pool_has_changed(at, updates, change):
    pool = POOLS["digits/drift"].fitted(task := tasks.load("digits"))
    pool = dataclasses.replace(pool, drift=dataclasses.replace(pool.drift, at=at))
    answer = BestTeachers.of(pool, task, updates)
    assert answer.change == change
    assert (best_teachers(pool, task, (change - 1) / updates) == answer.best).all()
    assert (best_teachers(pool, task, change / updates) == answer.best_after).all()


@pytest.mark.parametrize(("change", "bins"), [(50, 4), (37, 4), (99, 3), (1, 2)])
def test_no_bin_of_a_curve_is_on_both_sides_of_a_change(change, bins):
    answer, _ = changing(100, change)
    curve = regret_curve(follow(100, lambda update: 0.0), answer, bins)
    assert set(curve) == {0.0, 1.0}
    assert curve[curve.index < change].tolist() == [0.0] * int((curve.index < change).sum())
    assert curve.index[0] >= 0
    assert curve.index[-1] <= 99


def test_bins_are_indexed_by_their_middle():
    answer, _ = changing(100, 50)
    assert regret_curve(follow(100, lambda update: 0.0), answer, bins=4).index.tolist() == [12.0, 37.0, 62.0, 87.0]
    with pytest.raises(InputError, match="empty trace"):
        regret_curve(make_trace([]), answer)


@pytest.mark.parametrize(
    ("weight_on_second", "expected"),
    [
        (lambda update: float(update >= 50), 0),  # follows at once
        (lambda update: float(update >= 57), 7),
        (lambda update: 0.0, None),  # never
        (lambda update: 0.5, 0),  # uniform: the change does not matter
        (lambda update: 0.1 if update < 50 else min((update - 50) / 20, 0.9), 18),  # as good as before, and no better
        (lambda update: float(update >= 57 and update % 2), None),  # half of the time is not enough
    ],
)
def test_recovery_is_counted_from_the_change(weight_on_second, expected):
    answer, _ = changing(100, 50)
    assert recovery_updates(follow(100, weight_on_second), answer, tolerance=0.0, window=2) == expected


def test_a_tolerance_and_a_window_shorten_and_smooth_the_recovery():
    answer, _ = changing(100, 50)
    trace = follow(100, lambda update: min(max(update - 50, 0) / 20, 1.0))
    assert recovery_updates(trace, answer, tolerance=0.0, window=1) == 20
    assert recovery_updates(trace, answer, tolerance=0.5, window=1) == 10
    assert recovery_updates(trace, answer, tolerance=0.5, window=11) == 5, "the mean over updates 5 to 15 is at a half"


def test_recovery_needs_a_change_and_enough_updates():
    with pytest.raises(InputError, match="do not change"):
        recovery_updates(follow(100, lambda update: 0.0), STATIC)
    answer, _ = changing(100, 90)
    with pytest.raises(InputError, match="90 updates before the change and 10 after it; window=25"):
        recovery_updates(follow(100, lambda update: 0.0), answer)


def test_the_table_has_a_row_per_policy_and_the_figure_a_line():
    answer, _ = changing(100, 50)
    traces = {
        "never": [follow(100, lambda update: 0.0)] * 2,
        "late": [follow(100, lambda update: float(update >= 60)), follow(100, lambda update: float(update >= 80))],
        "at once": [follow(100, lambda update: float(update >= 50))],
    }
    table = regret_table(traces, answer, tolerance=0.0, window=10)
    assert table.index.tolist() == ["at once", "late", "never"]
    assert table["regret"].tolist() == pytest.approx([0.0, 0.2, 0.5])
    assert table["n"].tolist() == [1, 2, 2]
    assert table["before"].tolist() == [0.0, 0.0, 0.0]
    assert table["drop"].tolist() == [0.0, 1.0, 1.0]
    assert table["end"].tolist() == [0.0, 0.0, 1.0]
    assert table["recovered"].tolist() == [1.0, 1.0, 0.0]
    assert table["recovery"].tolist()[:2] == [0.0, 20.0], "the median of 10 and 30"
    assert np.isnan(table["recovery"].iloc[2])
    axes = regret_figure(traces, answer, bins=10).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["at once", "late", "never"]
    assert list(axes.get_lines()[0].get_xdata()) == [50, 50]
    late = dict(zip(("at once", "late", "never"), axes.get_lines()[1:4], strict=True))["late"]
    assert list(late.get_ydata()) == [0, 0, 0, 0, 0, 1, 0.5, 0.5, 0, 0]


def test_the_end_of_a_short_trace_is_its_own():
    answer, _ = changing(100, 50)
    long, short = follow(100, lambda update: 1.0), follow(80, lambda update: 0.0)
    for traces in ([long, short], [short, long]):
        assert regret_table({"both": traces}, answer, window=10).loc["both", "end"] == pytest.approx(0.5)


def test_a_table_of_a_pool_that_does_not_change_has_no_recovery():
    table = regret_table({"first": [make_trace([(0, 0, 0, 0, 1.0), (0, 1, 1, 0, 1.0)])]}, STATIC)
    assert table.to_dict("list") == {"n": [1], "regret": [0.5]}


def test_the_answer_of_a_record_is_that_of_its_pool():
    record = {"pool": "digits/drift", "env": {"task": "digits"}, "updates": 15}
    answer, groups = BestTeachers.of_record(record), tasks.load("digits").train.groups
    assert answer.change == 8, "the first update that is not in the first half"
    assert (answer.best == groups).all()
    assert (answer.best_after == (groups - 1) % 4).all(), "teacher 0 becomes the expert for group 1"
    complementary, labels = BestTeachers.of_record(record | {"pool": "digits/complementary"}), tasks.load("digits").train.labels
    assert complementary.change is None
    for label, teacher in enumerate(POOLS["digits/complementary"].best_for_class):
        assert set(complementary.best[labels == label]) == {teacher}
    assert BestTeachers.of_record(record | {"pool": "digits/capacity"}) is None, "its best teacher is not stated"
    assert BestTeachers.of_record(record | {"pool": "own"}) is None


def test_curves_of_policies_start_and_end_with_their_runs():
    answer, _ = changing(30, 15)
    curves = [regret_curve(follow(30, lambda update: 1.0), answer, bins) for bins in (1, 2, 30, 300)]
    assert [len(curve) for curve in curves] == [2, 2, 30, 30]
    for first, second in itertools.pairwise(curves):
        assert first.mean() == pytest.approx(second.mean())
