"""Keywords of a distillation: what is wrong is said in one line that names the fix."""

import dataclasses
import re
import typing

import pytest

from kd_env import tasks
from kd_env.distillation.settings import RENAMED, DistillationSettings, distillation_settings
from kd_env.errors import InputError

NAMES = [field.name for field in dataclasses.fields(DistillationSettings)]
HINTS = typing.get_type_hints(DistillationSettings)


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits")


def test_defaults_are_the_task_s(task):
    settings, defaults = distillation_settings(task), task.defaults
    for name in ("student", "updates", "kd_weight", "temperature", "optimizer"):
        assert getattr(settings, name) == getattr(defaults, name)
    assert distillation_settings(dataclasses.replace(task, defaults=dataclasses.replace(defaults, updates=7))).updates == 7


def test_none_means_the_default(task):
    assert distillation_settings(task, **dict.fromkeys(NAMES)) == distillation_settings(task)


def test_every_field_is_documented():
    for name in NAMES:
        assert f"\n        {name}: " in DistillationSettings.__doc__, name


def test_settings_cannot_be_changed(task):
    with pytest.raises(dataclasses.FrozenInstanceError):
        distillation_settings(task).updates = 3


def test_whole_numbers_serve_as_floats_and_become_floats(task):
    settings = distillation_settings(task, kd_weight=1, temperature=2)
    assert type(settings.kd_weight) is type(settings.temperature) is float


def test_labels_are_read_below_full_kd_weight(task):
    assert [distillation_settings(task, kd_weight=kd_weight).uses_hard_labels for kd_weight in (0.0, 0.99, 1.0)] == [True, True, False]


@pytest.mark.parametrize(("typed", "meant"), [("update", "updates"), ("temprature", "temperature")])
def test_an_unknown_keyword_is_answered_with_the_nearest(task, typed, meant):
    with pytest.raises(InputError, match=f"unknown setting '{typed}'; did you mean '{meant}'"):
        distillation_settings(task, **{typed: 1})


def test_a_distillation_has_no_keywords_of_rewards(task):
    with pytest.raises(InputError, match="unknown setting 'credit'; "):
        distillation_settings(task, credit="head")


@pytest.mark.parametrize(("former", "now"), [("strength", "kd_weight"), ("features", "observation"), ("companion", "auxiliary_module")])
def test_a_former_name_is_answered_with_the_new_one(task, former, now):
    assert RENAMED[former] == now
    with pytest.raises(InputError, match=f"^setting '{former}' is now called '{now}'; use that name$"):
        distillation_settings(task, **{former: 1})


WRONG_TYPES = {int: ["3", 3.0, True, [3]], float: ["x", True, [0.5]], str: [1, 0.5, True], bool: [1, "yes", 0.0]}
"""For each type, values that are not of it."""


@pytest.mark.parametrize("name", NAMES)
def test_values_of_another_type_are_refused_by_name(task, name):
    kind = HINTS[name]
    for value in ["nonsense", 3, True] if typing.get_origin(kind) is typing.Literal else WRONG_TYPES[kind]:
        with pytest.raises(InputError, match=f"^{name}=.*expected"):
            distillation_settings(task, **{name: value})


RANGES = {
    "updates": (1, [0, -1]),
    "batch_size": (1, [0, -4]),
    "num_students": (1, [0, -2]),
    "reward_ce": (0.0, [-0.1, float("nan"), float("inf")]),
    "kd_weight": (0.0, [-0.1, 1.1, float("nan"), float("inf")]),
    "temperature": (1e-3, [0.0, -1.0, float("nan"), float("inf")]),
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges(task, name):
    edge, outside = RANGES[name]
    assert getattr(distillation_settings(task, **{name: edge}), name) == edge
    for value in outside:
        with pytest.raises(InputError, match=f"^{name}=.*: expected a"):
            distillation_settings(task, **{name: value})


def test_every_number_has_a_range():
    assert set(RANGES) == {name for name in NAMES if HINTS[name] in (int, float)}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [("adam(foo=1)", "'foo'"), ("adm", "unknown optimizer 'adm'; did you mean 'adam'"), ("sgd(lr=0)", "lr=0"), ("adam(", "adam")],
)
def test_a_wrong_optimizer_is_refused_before_anything_is_built(task, optimizer, message):
    with pytest.raises(InputError, match=re.escape(message)):
        distillation_settings(task, optimizer=optimizer)
