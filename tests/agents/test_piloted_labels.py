"""``piloted`` and reward labels that teach: what the pilots are taught, and whether the final student is taught them."""

import numpy as np
import pytest
import torch
from piloted_play import SETTINGS, in_pilot_phase, make, play, with_metrics

from kd_env.benchmark.run_trial import run_trial, teach
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import Transition

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]


def test_the_last_update_of_the_pilot_phase_is_the_learner_s_too():
    env, agent, observation = in_pilot_phase("piloted(rules=uniform)", reward_ce=1.0)
    with_metrics(agent, *[[0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1]] * 5)
    learned = []
    agent.learner.update = learned.append
    observation = play(env, agent, observation, 7)
    decision = agent.act(observation)
    assert agent.chosen.name == "uniform without labels"
    assert decision.strengths["reward_ce"].tolist() == [1.0] * 32
    assert not torch.allclose(decision.weights["response"], torch.tensor(0.25))
    info = {"credit": np.zeros((32, 4)), "credit_fold": np.zeros(32)}
    agent.update(Transition(observation, decision, np.zeros(32), observation, np.zeros(32, dtype=bool), info))
    assert len(learned) == 8


def test_labels_that_teach_a_pilot_do_not_score_it():
    _, agent = make("piloted(rules=uniform)", reward_ce=1.0)
    first, second = agent.halves
    assert sorted([*first, *second]) == sorted(agent.context.reward_positions)
    assert [pilot.taught_half for pilot in agent.pilots] == [0, 1, 0, 1, None, None, 0, 1]
    taught = agent._new_pilots()._run.reward_split.positions
    assert taught[:4].tolist() == [first.tolist(), second.tolist()] * 2
    agent.pilot_students = agent._new_pilots()
    by_half = {tuple(first): [0.9, 0.1, 0.8, 0.2, 0.4, 0.6, 0.7, 0.3], tuple(second): [0.3, 0.9, 0.5, 0.8, 0.5, 0.8, 0.4, 0.6]}
    agent.pilot_students.evaluate = lambda positions: np.array(by_half[tuple(positions)])
    # learner and labels, uniform and labels, learner without, uniform without, labels alone
    expected = [(0.1 + 0.3) / 2, (0.2 + 0.5) / 2, (0.4 + 0.5) / 2, (0.6 + 0.8) / 2, (0.3 + 0.4) / 2]
    assert agent._current_scores() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "rule", "labels_teach", "name"),
    [
        ([0.8, 0.7, 0.8, 0.8], None, True, "crossfit_credit with labels"),
        ([0.8, 0.9, 0.8, 0.8], 0, True, "uniform with labels"),
        ([0.8, 0.7, 0.9, 0.8], None, False, "crossfit_credit without labels"),
        ([0.8, 0.7, 0.9, 0.91], 0, False, "uniform without labels"),
        ([0.8, 0.82, 0.82, 0.82], None, True, "crossfit_credit with labels"),  # half a standard error is .025
    ],
)
def test_labels_teach_if_that_way_was_best(scores, rule, labels_teach, name):
    env, agent = make("piloted(rules=uniform)", reward_ce=1.0)
    agent.begin_episode(learning=True)
    agent.measured_scores = [np.array([*scores, 0.1])]  # the last are labels alone
    agent._choose()
    assert agent.chosen == (name, rule, labels_teach, True)
    assert agent.learned_summary()["chosen"] == name
    agent.begin_episode(learning=True)
    observation, _ = env.reset(seed=0)
    decision = agent.act(observation)
    assert decision.strengths["reward_ce"].tolist() == [float(labels_teach)] * 32
    passes = env.selection.distillation.state.forward_examples[0]
    env.selection.advance(decision)
    extra = env.selection.distillation.state.forward_examples[0] - passes
    assert extra == 32 + 32 * labels_teach, "a pass for credit, and one of the labels that teach"


def test_a_student_of_another_way_is_that_of_a_run_without_labels():
    """The labels leave the loss, and not only the records."""

    def student(reward_ce, scores):
        env, agent = make("piloted(rules=uniform)", reward_ce=reward_ce)
        with_metrics(agent, *[scores] * 5)
        teach(env, [agent], [0])
        return env.selection.finished[0].student.state()

    chosen = student(1.0, [0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1])
    plain = student(0.0, [0.1, 0.9])
    taught_labels = student(1.0, [0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1])
    assert all(torch.equal(chosen[name], plain[name]) for name in plain)
    assert not all(torch.equal(taught_labels[name], plain[name]) for name in plain)


def test_a_pilot_learns_the_labels_that_it_is_taught_and_no_others():
    env, agent, observation = in_pilot_phase("piloted(rules=uniform)", reward_ce=1.0, updates=300)
    play(env, agent, observation, 299)
    by_half = np.stack([agent.pilot_students.evaluate(half) for half in agent.halves])
    of_uniform = [number for number, pilot in enumerate(agent.pilots) if pilot.candidate.name.startswith("uniform")]
    half_0, half_1, without = by_half[:, of_uniform].T
    assert half_0[0] > without[0] + 0.05
    assert half_0[0] > half_0[1]
    assert half_1[1] > without[1] + 0.05
    assert half_1[1] > half_1[0]


def test_a_record_of_labels_that_may_teach_names_every_way(tmp_path):
    record = run_trial(Trial("digits", "piloted(rules=uniform)", 0, settings={**SETTINGS, "reward_ce": 1.0}), tmp_path)
    names = [f"{name} {how} labels" for how in ("with", "without") for name in ("crossfit_credit", "uniform")] + ["labels alone"]
    assert list(record["learned"]["scores"]) == names
    assert record["learned"]["chosen"] in names


def test_the_default_rules_average_teachers_or_choose_one():
    _, agent = make(reward_ce=1.0)
    ways = ("crossfit_credit", "taught_stacking", "stacking(sharpness=30)")
    names = [f"{name} {how} labels" for how in ("with", "without") for name in ways] + ["labels alone"]
    assert [candidate.name for candidate in agent.candidates] == names
    batch = agent.context.batch()
    averaged, sharp = (agent._weights_for(rule, batch).amax(1).mean() for rule in (0, 1))
    assert sharp > 0.99 > averaged


def test_a_state_of_other_candidates_is_refused():
    _, agent = make("piloted(rules=uniform)", reward_ce=1.0)
    _, without_labels = make("piloted(rules=uniform)")
    with pytest.raises(
        InputError,
        match="it was saved with other candidates than crossfit_credit, uniform; use the same learner, rules and reward_ce",
    ):
        without_labels.load_state(agent.state())
    agent.measured_scores = [np.array([0.1, 0.2, 0.9, 0.3, 0.1])]
    agent._choose()
    _, again = make("piloted(rules=uniform)", reward_ce=1.0)
    again.load_state(agent.state())
    assert again.chosen == agent.chosen == ("crossfit_credit without labels", None, False, True)
