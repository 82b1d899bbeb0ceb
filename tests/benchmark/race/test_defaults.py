"""Budgets as users write them, and the default settings of a race."""

import pytest

from kd_env import tasks
from kd_env.benchmark.race.defaults import Budget, learns_in_population, race_settings, read_budget
from kd_env.errors import InputError
from kd_env.models.networks import build


@pytest.mark.parametrize(
    ("text", "budget", "shown"),
    [
        (None, Budget(), "2 runs of one student to the end"),
        ("2000", Budget(updates=2000), "2,000 updates"),
        (2000, Budget(updates=2000), "2,000 updates"),
        ("10min", Budget(seconds=600.0), "10 minutes"),
        ("1min", Budget(seconds=60.0), "1 minute"),
        ("90s", Budget(seconds=90.0), "1.5 minutes"),
        ("1.5 h", Budget(seconds=5400.0), "90 minutes"),
    ],
)
def test_budgets_are_updates_or_times(text, budget, shown):
    assert read_budget(text) == budget
    assert str(budget) == shown


@pytest.mark.parametrize("text", ["", "ten", "0", "0min", "2.5", "10 parsecs", "-3"])
def test_other_budgets_are_refused(text):
    with pytest.raises(InputError, match="expected a number of updates, as 2000, or a time"):
        read_budget(text)


def test_a_pretrained_student_gets_an_optimizer_and_updates_of_its_own(own_task, make_checkpoint, tmp_path):
    folder = str(make_checkpoint(tmp_path / "encoder", "bert"))
    filled = race_settings(own_task, {"student": folder, "temperature": None})
    assert filled == {
        "student": folder,
        "optimizer": "adamw(lr=0.0003,warmup=0.05,decay=linear)",
        "updates": 200,
        "validation_every": 200,
    }
    assert len(own_task.train) == 228
    assert race_settings(own_task, {"student": folder, "batch_size": 8})["updates"] == 342  # 12 epochs of 28.5 mini-batches
    assert race_settings(own_task, {"student": folder, "updates": 50, "optimizer": "adam(lr=0.1)"})["optimizer"] == "adam(lr=0.1)"


def test_other_students_have_the_defaults_of_their_task():
    digits = tasks.load("digits")
    assert race_settings(digits, {}) == {
        "student": "mlp(width=24)",
        "optimizer": "adam(lr=0.003)",
        "updates": 1500,
        "validation_every": 1500,
    }


def test_small_students_learn_in_a_population():
    digits = tasks.load("digits")
    assert learns_in_population(build("mlp(width=24)", digits, 0))
    assert not learns_in_population(build("mlp(width=3000)", digits, 0))
