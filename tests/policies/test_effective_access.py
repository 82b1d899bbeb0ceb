"""What a policy reads under the settings, as a record and a report say it."""

import pytest

from kd_env import tasks
from kd_env.benchmark.summary import access_rank, uses_reward_labels
from kd_env.envs.settings import settings
from kd_env.policies.access import ACCESS, effective_access

LABEL_CREDIT = {"credit": "first_order", "kd_weight": 0.5, "knowledge": "tckd,nckd(strength=8)"}
"""Credit of knowledge types that compare the training labels."""


@pytest.mark.parametrize("access", ACCESS)
def test_with_the_defaults_it_is_what_the_class_declares(access):
    assert effective_access(access, settings(tasks.load("digits"))) == access


@pytest.mark.parametrize(
    ("access", "keywords", "expected"),
    [
        ("reward scalar", {"observe_labels": True}, "train labels + reward scalar"),
        ("reward scalar", {"reward": "student_loss"}, "train labels + reward scalar"),
        ("reward scalar", {"credit": "first_order"}, "reward gradient"),
        ("reward scalar", {"credit": "first_order", "observe_labels": True}, "train labels + reward gradient"),
        ("nothing", {"observe_labels": True}, "train labels"),
        ("gradient", {"observe_labels": True}, "gradient"),
        ("privileged", {"observe_labels": True, "reward_ce": 1.0}, "privileged"),
        ("teacher outputs", {"reward_ce": 1.0}, "reward labels"),
        ("nothing", {"calibrate_teachers": True}, "reward labels"),
        ("train labels", {"reward_ce": 1.0}, "train labels + reward labels"),
        ("reward labels", {"reward": "mixed"}, "train labels + reward labels"),
        ("reward gradient", {"credit": "first_order", "kd_weight": 0.5}, "reward gradient"),
        ("reward gradient", LABEL_CREDIT, "train labels + reward gradient"),
        ("reward gradient", {**LABEL_CREDIT, "credit": "shared"}, "reward gradient"),
        ("nothing", LABEL_CREDIT, "nothing"),
        ("reward gradient", {"credit": "first_order", "kd_weight": 0.5, "action": "joint"}, "train labels + reward gradient"),
        ("reward gradient", {"credit": "first_order", "kd_weight": 1.0, "action": "joint"}, "reward gradient"),
    ],
)
def test_settings_that_show_or_pay_more_are_added(access, keywords, expected):
    assert effective_access(access, settings(tasks.load("digits"), **keywords)) == expected


def test_reports_rank_several_classes_by_the_widest():
    assert access_rank("train labels + reward scalar") == access_rank("reward scalar") == ACCESS.index("reward scalar")
    assert access_rank("something else") == len(ACCESS)
    assert uses_reward_labels("train labels + reward scalar")
    assert not uses_reward_labels("train labels + gradient")
