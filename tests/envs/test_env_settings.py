"""Keywords of an environment: three groups of settings, given as one flat list."""

import dataclasses
import typing

import pytest

from kd_env import tasks
from kd_env.distillation.settings import distillation_settings
from kd_env.envs.settings import GROUPS, InterfaceSettings, RewardSettings, Settings, settings
from kd_env.errors import InputError

OF_GROUP = {group: [field.name for field in dataclasses.fields(group)] for group in GROUPS}
NAMES = [name for names in OF_GROUP.values() for name in names]
HINTS = {name: hint for group in GROUPS for name, hint in typing.get_type_hints(group).items()}


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits")


def test_no_two_groups_have_a_setting_of_the_same_name():
    assert len(NAMES) == len(set(NAMES))


def test_flat_settings_are_the_keywords_that_make_them(task):
    keywords = {"updates": 7, "credit": "head", "granularity": "batch", "observation": "cls", "teacher_cost": 0.5, "knowledge": "hint"}
    chosen = settings(task, **keywords)
    assert set(chosen.flat()) == set(NAMES)
    assert chosen.flat().items() >= keywords.items()
    assert settings(task, **chosen.flat()) == chosen
    assert (chosen.distillation.updates, chosen.reward.credit, chosen.interface.granularity) == (7, "head", "batch")


def test_the_group_of_the_distillation_is_that_of_a_distillation_alone(task):
    assert settings(task, updates=9, credit="head").distillation == distillation_settings(task, updates=9)


def test_none_means_the_default(task):
    assert settings(task, **dict.fromkeys(NAMES)) == settings(task)


@pytest.mark.parametrize("group", [RewardSettings, InterfaceSettings])
def test_every_field_is_documented(group):
    for name in OF_GROUP[group]:
        assert f"\n        {name}: " in group.__doc__, name


@pytest.mark.parametrize("group", ["distillation", "reward", "interface"])
def test_settings_cannot_be_changed(task, group):
    chosen = settings(task)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(chosen, group, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(getattr(chosen, group), next(iter(dataclasses.asdict(getattr(chosen, group)))), None)
    assert isinstance(chosen, Settings)


def test_an_unknown_keyword_is_answered_with_the_nearest(task):
    near = {"update": "updates", "temprature": "temperature", "rewards": "reward", "observe_label": "observe_labels"}
    for typed, meant in near.items():
        with pytest.raises(InputError, match=f"unknown setting '{typed}'; did you mean '{meant}'"):
            settings(task, **{typed: 1})


def test_a_keyword_like_no_other_is_answered_with_all(task):
    with pytest.raises(InputError, match=r"unknown setting 'zzzzzz'; known: action, augmentation, auxiliary_module, .*validation_every"):
        settings(task, zzzzzz=1)


def test_a_former_name_is_answered_with_the_new_one(task):
    for former, now in {"strength": "kd_weight", "features": "observation", "companion": "auxiliary_module"}.items():
        with pytest.raises(InputError, match=f"^setting '{former}' is now called '{now}'; use that name$"):
            settings(task, **{former: 1})


WRONG_TYPES = {int: ["3", 3.0, True, [3]], float: ["x", True, [0.5]], str: [1, 0.5, True], bool: [1, "yes", 0.0]}
"""For each type, values that are not of it."""


@pytest.mark.parametrize("group", [RewardSettings, InterfaceSettings])
def test_values_of_another_type_are_refused_by_name(task, group):
    for name in OF_GROUP[group]:
        kind = HINTS[name]
        for value in ["nonsense", 3, True] if typing.get_origin(kind) is typing.Literal else WRONG_TYPES[kind]:
            with pytest.raises(InputError, match=f"^{name}=.*expected"):
                settings(task, **{name: value})


RANGES = {
    "credit_refresh": (1, [0]),
    "reward_examples": (1, [0]),
    "updates_per_phase": (1, [0, -1]),
    "reward_every": (0, [-1]),
    "reward_labels": (0, [-1]),
    "label_seed": (0, [-1]),
    "validation_every": (0, [-1]),
    "teacher_cost": (0.0, [-0.1, float("nan"), float("inf")]),
    "exploration_bonus": (0.0, [-0.1, float("nan"), float("inf")]),
    "reward_mix": (1.0, [-0.1, 1.1, float("nan")]),
}


def test_ranges(task):
    for name, (edge, outside) in RANGES.items():
        assert settings(task, **{name: edge}).flat()[name] == edge
        for value in outside:
            with pytest.raises(InputError, match=f"^{name}=.*: expected a"):
                settings(task, **{name: value})


def test_every_number_has_a_range():
    of_environments = [*OF_GROUP[RewardSettings], *OF_GROUP[InterfaceSettings]]
    assert set(RANGES) == {name for name in of_environments if HINTS[name] in (int, float)}


def test_credit_divides_dev_improvement_alone(task):
    for credit in ("head", "first_order", "counterfactual", "some.module:function"):
        for reward in ("student_loss", "student_and_distillation_loss", "mixed", "some.module:Reward"):
            with pytest.raises(InputError, match=r"credit=.*dev_improvement"):
                settings(task, credit=credit, reward=reward)
        assert settings(task, credit=credit, reward="dev_improvement").reward.credit == credit


def test_a_phase_is_taught_with_one_decision(task):
    with pytest.raises(InputError, match=r"updates_per_phase=2: .*granularity=batch"):
        settings(task, updates_per_phase=2)
    assert settings(task, updates_per_phase=2, granularity="batch").interface.updates_per_phase == 2
