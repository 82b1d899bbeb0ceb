"""What is searched for a policy: shared settings, and what a class declares."""

import re
from typing import ClassVar

import pytest

from kd_env.benchmark.trial import Trial
from kd_env.benchmark.tuning import space
from kd_env.benchmark.tuning.configuration import Configuration
from kd_env.errors import InputError
from kd_env.policies import Choice, Range
from kd_env.policies.registry import POLICIES


def space_of(policy, **settings):
    return space.space_of(Trial("digits", policy, 0, settings=settings, test=False))


class Mine:
    """A rule of one's own."""

    search_space: ClassVar = {"sharpness": Range(1.0, 8.0), "times": Range(1, 3), "mode": Choice(("a", "b")), "batch_size": Range(8, 64)}

    def __init__(self, context, seed=0, sharpness=20.0, times=1, mode="c", zero=0.0):
        """Do nothing."""

    def decide(self, batch):
        """Do nothing."""


def test_all_policies_share_temperature_and_rate_and_the_weight_only_where_labels_are_part_of_the_setting():
    shared = {"temperature": Range(1.0, 8.0, log=True), "optimizer.lr": Range(0.003 / 10, 0.003 * 10, log=True)}
    assert space_of("uniform").entries == shared
    assert space_of("uniform").start == {"temperature": 2.0, "optimizer.lr": 0.003}
    with_labels = space_of("uniform", kd_weight=0.95, temperature=12)
    assert with_labels.entries["kd_weight"] == Range(0.1, 0.95)
    assert with_labels.entries["temperature"] == Range(1.0, 12.0, log=True), "what the setting has can be tried"
    assert "kd_weight" not in space_of("no_teacher", kd_weight=0.5).entries, "this weight defines the policy"


def test_a_class_declares_options_and_settings():
    searched = space_of(f"{__name__}:Mine")
    assert searched.entries["sharpness"] == Range(1.0, 20.0)
    assert searched.entries["times"].whole
    assert searched.entries["mode"] == Choice(("c", "a", "b"))
    assert (searched.options, searched.start["batch_size"]) == ({"sharpness", "times", "mode"}, 32)
    values = {**searched.start, "times": 2, "batch_size": 16, "optimizer.lr": 0.01}
    assert searched.configuration(values, 9) == Configuration({"times": 2}, {"batch_size": 16, "optimizer": "adam(lr=0.01)"}, 9)
    assert searched.configuration(searched.start, 9) == Configuration(trials=9)


def test_labels_are_not_brought_into_a_setting_without_them(monkeypatch):
    monkeypatch.setattr(Mine, "search_space", {"kd_weight": Range(0.2, 0.8)})
    assert "kd_weight" not in space_of(f"{__name__}:Mine").entries
    assert space_of(f"{__name__}:Mine", reward_ce=0.0).entries.keys() == {"temperature", "optimizer.lr"}


def test_a_default_that_is_not_whole_makes_a_range_of_all_numbers():
    assert Range(1, 8).including(9) == Range(1, 9)
    assert Range(1, 8).including(9).whole
    assert not Range(1, 8).including(2.5).whole


def test_what_is_given_is_not_searched():
    searched = space_of(f"{__name__}:Mine(times=2)", batch_size=16)
    assert searched.entries.keys() == {"temperature", "optimizer.lr", "sharpness", "mode"}


def test_the_rate_changes_nothing_else_of_the_optimizer():
    searched = space_of("uniform", optimizer="adamw(decay=linear,lr=0.01,warmup=0.1)")
    changed = searched.configuration({**searched.start, "optimizer.lr": 0.02}, 1)
    assert changed.settings == {"optimizer": "adamw(decay=linear,lr=0.02,warmup=0.1)"}


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"sharpnes": Range(1, 2)}, "unknown option or setting 'sharpnes'; did you mean 'sharpness'?"),
        ({"sharpness": (1, 2)}, "search_space['sharpness']=(1, 2); expected a Range or a Choice"),
        ({"mode": Range(1, 2)}, "search_space['mode'] is a Range, and its default 'c' is no number"),
        (
            {"zero": Range(0.001, 1.0, log=True)},
            "search_space['zero'] is logarithmic, and the default 0.0 is not above 0; use log=False, or another default",
        ),
        ({"updates": Range(100, 10000)}, "search_space['updates']: all policies of a comparison share this setting; leave it out"),
        ({"reward_labels": Choice((64, 256))}, "search_space['reward_labels']: all policies of a comparison share this setting"),
        ({"optimizer": Choice(("adam", "sgd"))}, "search_space['optimizer']: all policies of a comparison share this setting"),
        ({"mode": Choice(("a", "b,d"))}, "search_space['mode']: 'b,d' cannot be an option in a policy's name"),
        ({"mode": Choice(("a", "2"))}, "search_space['mode']: '2' cannot be an option in a policy's name"),
        ([("sharpness", Range(1, 2))], "expected a dict of Range and Choice by name"),
    ],
)
def test_a_declaration_that_cannot_be_used(declared, says, monkeypatch):
    monkeypatch.setattr(Mine, "search_space", declared)
    with pytest.raises(InputError, match=re.escape(says)):
        space_of(f"{__name__}:Mine")


@pytest.mark.parametrize("ends", [(2, 1), (1, 1), (0.0, 1.0, True), (float("nan"), 1.0), (1.0, float("inf")), ("a", "b")])
def test_a_range_needs_a_low_and_a_high_end(ends):
    with pytest.raises(InputError, match="expected low < high"):
        Range(*ends)


@pytest.mark.parametrize("values", [(), ("a",), ("a", "a"), ["a", "b"], (None, "a"), ([1], [2]), (1.0, float("nan"))])
def test_a_choice_needs_two_values(values):
    with pytest.raises(InputError, match="at least two values"):
        Choice(values)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_built_in_policy_can_be_built_with_the_ends_of_its_space(name):
    policy = "single:0" if name == "single" else name
    searched = space_of(policy, kd_weight=0.5)
    for take in (lambda entry: entry.values[0] if isinstance(entry, Choice) else entry.low,
                 lambda entry: entry.values[-1] if isinstance(entry, Choice) else entry.high):  # fmt: skip
        tuned = searched.configuration({key: take(entry) for key, entry in searched.entries.items()}, 1)
        trial = Trial("digits", policy, 0, settings={"kd_weight": 0.5}, test=False, tuned=tuned)
        assert trial.resolved.settings.distillation.temperature in (1.0, 8.0)
