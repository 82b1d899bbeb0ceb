"""Pictures and texts follow from what was added, in bounded memory, whatever the numbers."""

import copy
import itertools
import subprocess
import sys

import numpy as np
import pytest
from pairwise import chosen

from kd_env.envs import render
from kd_env.envs.render import History, frame, text


def played(labels=3, done=60, updates=100, seed=0, every=10):
    """A history of random rates and rewards, and all that was added to it: ``[done, labels]``, ``[done]``."""
    rng = np.random.default_rng(seed)
    rates, rewards = rng.dirichlet(np.ones(labels), done), rng.normal(size=done)
    history = History(tuple(f"teacher-{number}" for number in range(labels)), updates)
    for update, (rate, reward) in enumerate(zip(rates, rewards, strict=True), 1):
        history.add(update, rate, reward, 0.5 + update / 1000 if update % every == 0 else None)
    return history, rates, rewards


def with_one_more(history, **changes):
    """A fork of the history after one more update."""
    fork = copy.deepcopy(history)
    update = {"update": fork.update + 1, "rates": np.full(len(fork.names), 0.25), "reward": 0.1, "validation": None} | changes
    fork.add(**update)
    return fork


@pytest.mark.long
def test_a_frame_has_one_shape_for_any_number_of_labels():
    for labels in chosen(range(1, 17), [1, 8, 9, 16]):  # areas up to 8 of them, shades from 9 on
        picture = frame(played(labels)[0])
        assert picture.shape == (render.HEIGHT, render.WIDTH, 3)
        assert picture.dtype == np.uint8
        assert picture.flags.writeable, "a copy, not a window on a canvas"
        assert (picture[0, 0] == 255).all()


PANELS = {"rates": slice(20, 215), "reward": slice(250, 330), "validation": slice(365, 440)}  # pixel rows


@pytest.mark.parametrize(
    ("labels", "panel"),
    chosen(itertools.product([2, 12], PANELS), [(12, "rates"), (2, "reward"), (12, "validation")]),
)
def test_each_panel_shows_its_own_number(labels, panel):
    """Two histories that differ in one number differ in its panel, and in no other."""
    history = played(labels)[0]
    change = {panel: {"rates": np.full(labels, 0.9), "reward": 4.0, "validation": 0.9}[panel]}
    differs = (frame(with_one_more(history)) != frame(with_one_more(history, **change))).any((1, 2))
    assert [name for name, rows in PANELS.items() if differs[rows].any()] == [panel]


def test_the_same_history_gives_the_same_frame_and_is_not_changed_by_drawing():
    history = played()[0]
    before = text(history)
    assert (frame(history) == frame(history)).all()
    assert text(history) == before


def test_drawing_fills_the_axis_up_to_the_update():
    """Half an episode leaves the right half of the reward panel white."""
    picture = frame(played(done=50)[0])
    right = picture[255:325, 380:580]
    left = picture[255:325, 140:350]
    assert (right == 255).all()
    assert (left != 255).any()


def test_an_empty_history_can_be_shown():
    history = History(("first", "second"), 50)
    assert (frame(history) != frame(with_one_more(history))).any()
    shown = text(history).split("\n")
    assert shown[0].startswith("update 0/50 ")
    assert "first" in shown[2]
    assert shown[-2:] == ["reward –", "validation not measured yet"]


@pytest.mark.long
@pytest.mark.parametrize("done", [1, 511, 512, 513, 100_000])
def test_bins_stay_few_and_keep_the_overall_mean(done):
    history, rates, rewards = played(done=done, updates=done, every=7)
    table, size = history.steps.table, history.steps.size
    assert table.shape == (2, render.MAX_BINS, 5)
    assert history.validations.table.shape == (2, render.MAX_BINS, 2)
    assert size == 1 or done > render.MAX_BINS * size // 2, "no coarser than it takes"
    sums, counts = table.sum(1)
    assert (counts == done).all()
    np.testing.assert_allclose(sums / done, [(done + 1) / 2, rewards.mean(), *rates.mean(0)], rtol=1e-9)
    by_hand = [rewards[start : start + size].mean() for start in range(0, done, size)]
    np.testing.assert_allclose(history.steps.means()[:, 1], by_hand, rtol=1e-9, atol=1e-12)


def test_the_mean_over_a_window_by_hand():
    history = History(("only",), 150)  # a window of three updates
    for update, reward in enumerate([1.0, 3.0, np.nan, 8.0, 2.0], 1):
        history.add(update, np.ones(1), reward, None)
    np.testing.assert_allclose(history.steps.means(history.window)[:, 1], [1.0, 2.0, 2.0, 5.5, 5.0])
    assert "reward 5.0000 " in text(history)


@pytest.mark.long
@pytest.mark.parametrize("missing", chosen([np.nan, np.inf, -np.inf, 1e300], [np.nan, -np.inf]))
def test_numbers_that_are_not_finite_are_left_out(missing):
    history = played(2)[0]
    broken = with_one_more(history, rates=np.array([missing, 0.25]), reward=missing, validation=missing)
    assert broken.update == history.update + 1
    assert (broken.last, broken.best) == (history.last, history.best)
    assert (np.abs(broken.steps.means(history.window)) < 100).all()
    assert frame(broken).shape == frame(history).shape
    nothing = History(("a", "b"), 10)
    nothing.add(1, np.array([missing, missing]), missing, missing)
    assert frame(nothing).shape == frame(history).shape
    assert "nan" not in text(nothing)
    assert "inf" not in text(nothing)


def test_a_student_that_diverges_does_not_flatten_the_rewards_before():
    history = played(done=90)[0]
    low, high = render._limits(with_one_more(history, reward=-1e6).steps.means()[:, 1])
    rewards = history.steps.means()[:, 1]
    assert low <= rewards.min() < rewards.max() <= high
    assert high - low < 1.5 * np.ptp(rewards)


def test_text_shows_the_numbers():
    history = History(("good", "bad"), 200)
    for update, validation in enumerate([None, 0.75, None, 0.625, np.nan], 1):
        history.add(update, np.array([0.75, 0.25]), 0.5, validation)
    progress, _, good, bad, reward, validation = text(history).split("\n")
    assert progress.startswith("update 5/200 ")
    assert good.split()[0] == "good"
    assert good.endswith(" 0.7500")
    assert bad.endswith(" 0.2500")
    assert good.count("█") == 34  # of 46, and a half
    assert bad.count("█") == 11
    assert reward.split()[:2] == ["reward", "0.5000"]
    assert validation == "validation 0.6250 at update 4, best 0.7500 at update 2"


def test_the_spark_line_rises_with_the_reward():
    history = History(("only",), 500)
    for update in range(1, 501):
        history.add(update, np.ones(1), update / 500, None)
    spark = text(history).split("\n")[-2].split()[-1]
    assert list(spark) == sorted(spark)
    assert (spark[0], spark[-1]) == ("▁", "█")
    assert len(spark) == render.BAR_LENGTH


@pytest.mark.parametrize("labels", [1, 16])
def test_text_fits_a_terminal(labels):
    history, _, _ = played(labels, done=3000, updates=1_000_000)
    huge = with_one_more(history, update=1_000_000, rates=np.full(labels, -1.2345e99), reward=-1.2345e99, validation=-1.2345e99)
    for shown in (text(history), text(huge)):
        assert len(shown.split("\n")) == labels + 4
        assert max(map(len, shown.split("\n"))) <= 80
        assert shown == shown.rstrip()
    assert frame(huge).shape == (render.HEIGHT, render.WIDTH, 3)


@pytest.mark.long
def test_long_names_keep_both_ends_and_leave_the_panel_alone():
    long = ("digits/mlp(width=64,seed=1)", "digits/mlp(width=64,seed=2)", "$x^{$", "18 letters, exact.")
    history = History(long, 10)
    history.add(1, np.full(4, 0.25), 0.0, None)
    assert history.names == ("digits/ml…,seed=1)", "digits/ml…,seed=2)", "$x^{$", "18 letters, exact.")
    short = History(("a", "b", "c", "d"), 10)
    short.add(1, np.full(4, 0.25), 0.0, None)
    differs = (frame(history) != frame(short)).any((0, 2))
    margin = round(0.21 * render.WIDTH)
    assert differs[1:margin].any()
    assert not differs[0], "the names end inside the picture"
    assert not differs[margin:].any()


def test_a_number_of_rates_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="shape"):
        History(("a", "b"), 10).add(1, np.ones(1), 0.0, None)


@pytest.mark.long
def test_matplotlib_comes_with_the_first_frame_and_pyplot_never():
    script = (
        "import sys; from kd_env.envs.render import History, frame, text\n"
        "history = History(('a',), 5); text(history); assert 'matplotlib' not in sys.modules\n"
        "frame(history); assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
