"""The candidates of a race depend on the data and on the settings of the user."""

from dataclasses import replace

import pytest

from kd_env import tasks
from kd_env.benchmark.race import candidates
from kd_env.benchmark.race.candidates import Candidate
from kd_env.errors import InputError


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


def names(task, teachers, **settings):
    first = candidates.first_candidates(task, settings)
    return [candidate.name for candidate in first + candidates.more_candidates(task, teachers, settings, first[1 % len(first)], len(first))]


def test_settings_are_searched_one_after_the_other(digits):
    assert names(digits, 4) == [
        "no_teacher",
        "uniform, kd_weight 0.5, temperature 2",
        "uniform, kd_weight 1, temperature 2",
        "uniform, kd_weight 0.5, temperature 5",
        "best_single, kd_weight 0.5, temperature 2",
        "router, kd_weight 0.5, temperature 2",
        "stacking, kd_weight 0.5, temperature 2",
        "crossfit_credit, kd_weight 0.5, temperature 2",
    ]


def test_without_groups_there_are_no_rules_for_experts(digits):
    without = replace(digits, train=replace(digits.train, groups=None))
    assert [name.split(",")[0] for name in names(without, 2)][-3:] == ["camkd_logits", "stacking", "crossfit_credit"]


def test_settings_of_the_user_are_not_varied(digits):
    assert names(digits, 1, kd_weight=0.3, temperature=4.0) == ["no_teacher", "uniform, kd_weight 0.3, temperature 4"]
    assert "no_teacher" not in names(digits, 4, kd_weight=1.0), "labels are not used"


def test_one_teacher_leaves_nothing_to_select(digits):
    assert [name.split(",")[0] for name in names(digits, 1)] == ["no_teacher", *["uniform"] * 3]


def test_ranks_follow_the_order_from_the_simplest(digits):
    first = candidates.first_candidates(digits, {})
    more = candidates.more_candidates(digits, 4, {}, first[2], len(first))
    assert [candidate.rank for candidate in first + more] == list(range(8))
    assert more[0].options["kd_weight"] == 1.0
    assert candidates.candidates_and_cost(digits, 4, {}) == (8, candidates.EXTRA_COST["crossfit_credit"])


@pytest.mark.parametrize(("policy", "reads"), [("uniform", False), ("best_single", False), ("router", True), ("crossfit_credit", True)])
def test_candidates_that_read_the_reward_labels(digits, policy, reads):
    assert candidates.scored_on_validation_alone(Candidate(policy), digits, {}) is reads


@pytest.mark.parametrize("settings", [{"calibrate_teachers": True}, {"reward_ce": 0.5}, {"reward_labels": 20}])
def test_candidates_are_not_scored_on_labels_that_a_setting_reads(digits, settings):
    assert candidates.scored_on_validation_alone(Candidate("uniform"), digits, settings)


def test_stacking_takes_part_only_with_the_labels_that_it_needs(digits):
    assert [name.split(",")[0] for name in names(digits, 4, reward_labels=2)][-2:] == ["stacking", "crossfit_credit"]
    assert [name.split(",")[0] for name in names(digits, 4, reward_labels=1)][-2:] == ["best_single", "router"]


def test_no_teacher_keeps_its_own_weight_and_the_user_s_settings_reach_all(digits):
    _, settings, options = candidates.resolve(Candidate("no_teacher"), digits, {"updates": 7})
    assert (settings.distillation.kd_weight, settings.distillation.updates, options["updates"]) == (0.0, 7, 7)
    with pytest.raises(InputError, match="action=one: each candidate of a race sets its own"):
        candidates.resolve(Candidate("uniform"), digits, {"action": "one"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "student_loss"}, "reward=student_loss: no candidate of a race learns from it"),
        ({"credit": "head"}, "credit=head: crossfit_credit needs its own"),
        ({"block_swap": "linear"}, "block_swap=linear: the student without a teacher"),
        ({"kd_weight": 0.0}, "kd_weight=0: no candidate would learn from the teachers"),
    ],
)
def test_settings_that_leave_nothing_to_compare_are_refused(digits, settings, message):
    with pytest.raises(InputError, match=message):
        candidates.resolve(Candidate("uniform", {"kd_weight": 0.5}), digits, settings)


@pytest.mark.parametrize(("settings", "examples", "refresh"), [({}, 64, 4), ({"reward_examples": 32, "credit_refresh": 1}, 32, 1)])
def test_credit_has_the_user_s_settings_or_those_of_the_race(digits, settings, examples, refresh):
    first = candidates.first_candidates(digits, settings)
    learned = candidates.more_candidates(digits, 4, settings, first[1], 3)[-1]
    reward = candidates.resolve(learned, digits, settings)[1].reward
    assert (learned.policy, reward.reward_examples, reward.credit_refresh) == ("crossfit_credit", examples, refresh)
