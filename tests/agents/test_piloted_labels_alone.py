"""``piloted``: where labels may teach, labels without teachers are a way to teach."""

import numpy as np
import pytest
import torch
from piloted_play import SETTINGS, in_pilot_phase, make, play, taught, with_metrics

from kd_env.benchmark.run_trial import make_env, run_trial, teach
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]

POLICY = "piloted(rules=uniform)"


def finished_student(policy, metrics=None, **settings):
    env = make_env(Trial("digits", policy, 0, settings={**SETTINGS, **settings}))
    agent = registry.find(policy).build(env, 0)
    if metrics is not None:
        with_metrics(agent, *[metrics] * 5)
    teach(env, [agent], [0])
    return env.selection.finished[0].student.state()


def test_pilots_of_labels_alone_are_taught_half_of_the_labels_and_by_no_teacher():
    _, agent, _ = in_pilot_phase(POLICY, reward_ce=1.0)
    assert [(pilot.candidate.name, pilot.taught_half) for pilot in agent.pilots[-2:]] == [("labels alone", 0), ("labels alone", 1)]
    agent.pilot_students, decisions = agent._new_pilots(), []
    agent.pilot_students.teach = decisions.append
    agent._teach_pilots(1)
    by_pilot = {name: strength.view(8, 32)[:, 0].tolist() for name, strength in decisions[0].strengths.items()}
    assert by_pilot == {"response": [1, 1, 1, 1, 1, 1, 0, 0], "reward_ce": [1, 1, 1, 1, 0, 0, 1, 1]}


def test_the_final_student_is_that_of_the_labels_alone_if_they_were_best():
    chosen = finished_student(POLICY, [0.1] * 6 + [0.9, 0.9], reward_ce=1.0)
    alone = finished_student("reward_supervised", reward_ce=1.0)
    assert all(torch.equal(chosen[name], alone[name]) for name in alone)


def test_no_teacher_has_a_weight_in_the_final_student_of_the_labels_alone():
    agent, weights = taught(POLICY, [0.1] * 6 + [0.9, 0.9], reward_ce=1.0)
    assert agent.chosen.name == "labels alone"
    assert (weights[:8].sum(-1) > 0.99).all(), "the learner teaches in the pilot phase"
    assert not weights[8:].any()
    assert not agent.selection_entropy({}).any()


def test_further_pilots_change_no_other_student():
    """A trial with one more rule, in which the rule loses, is the trial without it."""
    with_it = finished_student("piloted(rules=uniform;single:1)", [0.1] * 7 + [0.9] + [0.1] * 3, reward_ce=1.0)
    without = finished_student(POLICY, [0.1] * 5 + [0.9] + [0.1] * 2, reward_ce=1.0)
    assert all(torch.equal(with_it[name], without[name]) for name in without)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([0.8, 0.1, 0.1, 0.1, 0.801], "labels alone"),  # they need no lead; half a standard error is .025
        ([0.8, 0.1, 0.1, 0.1, 0.8], "crossfit_credit with labels"),
        ([0.8, 0.1, 0.82, 0.1, 0.81], "labels alone"),  # another candidate that lacks its lead does not stand in their way
        ([0.8, 0.1, 0.85, 0.1, 0.82], "crossfit_credit without labels"),
    ],
)
def test_labels_alone_need_no_lead(scores, chosen):
    _, agent = make(POLICY, reward_ce=1.0)
    agent.measured_scores = [np.array(scores)]
    agent._choose()
    assert agent.chosen.name == chosen


def test_a_pilot_of_labels_alone_learns_its_labels():
    env, agent, observation = in_pilot_phase(POLICY, reward_ce=1.0, updates=300)
    play(env, agent, observation, 299)
    on_first, on_second = (agent.pilot_students.evaluate(half)[-2:] for half in agent.halves)
    assert on_first[0] > on_first[1] + 0.1
    assert on_second[1] > on_second[0] + 0.1


def test_they_are_left_out_where_labels_do_not_teach():
    assert [candidate.name for candidate in make(POLICY)[1].candidates] == ["crossfit_credit", "uniform"]


def test_the_record_names_them(tmp_path):
    record = run_trial(Trial("digits", POLICY, 0, settings={**SETTINGS, "reward_ce": 1.0}), tmp_path)
    assert list(record["learned"]["scores"])[-1] == "labels alone"
    assert np.isfinite(record["learned"]["scores"]["labels alone"])
