"""``piloted``: how the pilots are scored, and who teaches the final student."""

import numpy as np
import pytest
import torch
from piloted_play import SETTINGS, in_pilot_phase, make, play, taught, with_metrics

from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.policies import Transition

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]


def test_the_score_is_the_mean_of_the_last_five_measurements():
    env, agent, observation = in_pilot_phase("piloted(rules=uniform)", updates=40)
    with_metrics(agent, [0.1, 0.6], [0.2, 0.6], [0.3, 0.7], [0.4, 0.8], [0.5, 0.8])  # after 32, 34, 36, 38 and 40 updates
    observation = play(env, agent, observation, 31)
    assert agent.learned_summary()["scores"] == {"crossfit_credit": None, "uniform": None}, "nothing is measured yet"
    observation = play(env, agent, observation, 1)
    assert agent.scores == pytest.approx([0.1, 0.6])
    play(env, agent, observation, 8)
    assert agent.scores == pytest.approx([0.3, 0.7])
    assert agent.learned_summary() == {"chosen": "uniform", "scores": pytest.approx({"crossfit_credit": 0.3, "uniform": 0.7})}


def test_short_pilot_phases_are_measured_after_every_update():
    env, agent, observation = in_pilot_phase("piloted(rules=uniform)", updates=3)
    with_metrics(agent, [0.1, 0.3], [0.2, 0.3], [0.3, 0.3])
    play(env, agent, observation, 3)
    assert agent.scores == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([0.8, 0.7, 0.8 + 0.049], None),
        ([0.8, 0.7, 0.8 + 0.051], 1),  # the standard error of .8 from 64 labels is .05
        ([0.8, 0.9, 0.86], 0),
        ([1.0, 1.0, 1.0], None),
        ([-0.1, 0.01, -0.2], 0),  # a metric such as a correlation may be negative
        ([0.5, -np.inf, -np.inf], None),
        ([-np.inf, -np.inf, 0.1], 1),
        ([-np.inf, -np.inf, -np.inf], None),
    ],
)
def test_the_choice_by_hand(scores, chosen):
    _, agent = make("piloted(rules=uniform;router,margin=1.0)")
    agent.measured_scores = [np.array(scores)]
    agent._choose()
    assert agent.chosen.rule == chosen
    told = agent.learned_summary()
    assert told["chosen"] == ["crossfit_credit", "uniform", "router"][0 if chosen is None else chosen + 1]
    assert [score is None for score in told["scores"].values()] == [not np.isfinite(score) for score in scores], "infinity is not JSON"


def test_the_winner_teaches_the_student_that_counts_from_the_start():
    agent, weights = taught("piloted(rules=single:2)", [0.1, 0.9])
    assert len(weights) == 16, "two students of 8 updates"
    assert not np.allclose(weights[:8, :, 2], 1.0), "the learner teaches in the pilot phase"
    assert np.allclose(weights[8:, :, 2], 1.0)
    assert agent.chosen.rule == 0


def test_a_learner_that_wins_begins_again_and_learns():
    agent, weights = taught("piloted(rules=single:2,learner=crossfit_credit(learning_rate=0.05))", [0.9, 0.1])
    alone_env, alone = make("crossfit_credit(learning_rate=0.05)")
    observation, _ = alone_env.reset(seed=0)
    for row in weights[8:]:
        action = alone.act(observation)
        np.testing.assert_allclose(row, alone_env.selection.action_kind.decode(action, len(action)).weights, atol=1e-6)
        following, reward, terminated, _, info = alone_env.step(action)
        alone.update(Transition(observation, action, reward, following, terminated, info))
        observation = following
    assert agent.chosen.rule is None


def test_the_pilot_of_a_rule_is_taught_by_the_rule_alone():
    env, agent, observation = in_pilot_phase("piloted(rules=single:1)")
    play(env, agent, observation, 3)
    alone = agent._new_pilots()
    weights = torch.eye(4)[1].expand(2 * env.selection.settings.distillation.batch_size, 4)
    for _ in range(3):
        alone.batch([0, 1])
        alone.teach(agent.context.decision(dict.fromkeys(agent.context.terms, weights)))
    of_pilots, of_alone = agent.pilot_students.state()["tensors"], alone.state()["tensors"]
    parameters = [name for name in of_alone if of_alone[name].dim() > 1 and of_alone[name].is_floating_point()]
    assert parameters
    assert all(torch.allclose(of_pilots[name][1], of_alone[name][1], atol=1e-6) for name in parameters)
    assert not all(torch.allclose(of_pilots[name][0], of_alone[name][0], atol=1e-6) for name in parameters)


def test_the_record_has_the_scores(tmp_path):
    record = run_trial(Trial("digits", "piloted(rules=uniform)", 0, settings=SETTINGS), tmp_path)
    assert set(record["learned"]["scores"]) == {"crossfit_credit", "uniform"}
    rows, batch, updates = 64, 32, 8
    assert record["student_forward_examples"] >= 4 * updates * batch + 5 * rows, "two students and two pilots, and their scores"
