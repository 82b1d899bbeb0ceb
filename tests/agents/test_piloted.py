"""``piloted``: what the pilots are taught and how they are scored, and who teaches the student that counts, with and without labels."""

import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import make_env, run_trial, teach
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import Transition, registry

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]

SETTINGS = {"updates": 8, "reward_labels": 64, "reward_ce": 0.0, "student": "mlp(width=8)"}


def make(policy="piloted", **settings):
    env = make_env(Trial("digits", policy, 0, settings={**SETTINGS, **settings}))
    return env, registry.find(policy).build(env, 0)


def on_trial(policy="piloted", **settings):
    env, agent = make(policy, **settings)
    agent.begin_episode(learning=True)
    observation, _ = env.reset(seed=0)
    return env, agent, observation


def play(env, agent, observation, steps):
    for _ in range(steps):
        action = agent.act(observation)
        following, reward, terminated, _, info = env.step(action)
        agent.update(Transition(observation, action, reward, following, terminated, info))
        observation = following
    return observation


def with_metrics(agent, *metrics):
    """Let the pilots have these metrics, one measurement after the other, on both halves of the labels."""
    new_pilots, remaining = agent._new_pilots, iter([metric for metric in metrics for _ in range(2)])

    def pilots():
        students = new_pilots()
        students.evaluate = lambda rows: np.array(next(remaining), dtype=np.float64)
        return students

    agent._new_pilots = pilots


def test_the_score_is_the_mean_of_the_last_five_measurements():
    env, agent, observation = on_trial("piloted(rules=uniform)", updates=40)
    with_metrics(agent, [0.1, 0.6], [0.2, 0.6], [0.3, 0.7], [0.4, 0.8], [0.5, 0.8])  # after 32, 34, 36, 38 and 40 updates
    observation = play(env, agent, observation, 31)
    assert agent.scores.tolist() == [0.0, 0.0]
    observation = play(env, agent, observation, 1)
    assert agent.scores == pytest.approx([0.02, 0.12])
    play(env, agent, observation, 8)
    assert agent.scores == pytest.approx([0.3, 0.7])
    assert agent.learned_summary() == {"chosen": "uniform", "scores": pytest.approx({"crossfit_credit": 0.3, "uniform": 0.7})}


def test_short_trials_are_measured_after_every_update():
    env, agent, observation = on_trial("piloted(rules=uniform)", updates=3)
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
    agent.scores = np.array(scores)
    agent._choose()
    assert agent.chosen.rule == chosen
    told = agent.learned_summary()
    assert told["chosen"] == ["crossfit_credit", "uniform", "router"][0 if chosen is None else chosen + 1]
    assert [score is None for score in told["scores"].values()] == [not np.isfinite(score) for score in scores], "infinity is not JSON"


def taught(policy, metrics):
    """Teach to the end, and return the weights of every update of the student that counts."""
    env, agent = make(policy)
    with_metrics(agent, *[metrics] * 5)
    weights, step = [], env.step

    def recorded(action):
        weights.append(action.weights["response"].numpy())
        return step(action)

    env.step = recorded
    teach(env, [agent], [0])
    return agent, np.stack(weights)


def test_the_winner_teaches_the_student_that_counts_from_the_start():
    agent, weights = taught("piloted(rules=single:2)", [0.1, 0.9])
    assert len(weights) == 16, "two students of 8 updates"
    assert not np.allclose(weights[:8, :, 2], 1.0), "the learner teaches on trial"
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
    env, agent, observation = on_trial("piloted(rules=single:1)")
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


def test_labels_that_teach_a_pilot_do_not_score_it():
    _, agent = make("piloted(rules=uniform)", reward_ce=1.0)
    first, second = agent.halves
    assert sorted([*first, *second]) == sorted(agent.context.reward_positions)
    assert [pilot.taught_half for pilot in agent.pilots] == [0, 1, 0, 1, None, None]
    taught = agent._new_pilots()._run.reward_split.positions
    assert taught[:4].tolist() == [first.tolist(), second.tolist()] * 2
    agent.pilot_students = agent._new_pilots()
    by_half = {tuple(first): [0.9, 0.1, 0.8, 0.2, 0.4, 0.6], tuple(second): [0.3, 0.9, 0.5, 0.8, 0.5, 0.8]}
    agent.pilot_students.evaluate = lambda positions: np.array(by_half[tuple(positions)])
    # learner and labels, uniform and labels, learner without, uniform without
    assert agent._current_scores() == pytest.approx([(0.1 + 0.3) / 2, (0.2 + 0.5) / 2, (0.4 + 0.5) / 2, (0.6 + 0.8) / 2])


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
    agent.scores = np.array(scores)
    agent._choose()
    assert agent.chosen == (name, rule, labels_teach)
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

    chosen = student(1.0, [0.1, 0.1, 0.1, 0.1, 0.1, 0.9])
    plain = student(0.0, [0.1, 0.9])
    taught_labels = student(1.0, [0.1, 0.1, 0.9, 0.9, 0.1, 0.1])
    assert all(torch.equal(chosen[name], plain[name]) for name in plain)
    assert not all(torch.equal(taught_labels[name], plain[name]) for name in plain)


def test_a_pilot_learns_the_labels_that_it_is_taught_and_no_others():
    env, agent, observation = on_trial("piloted(rules=uniform)", reward_ce=1.0, updates=300)
    play(env, agent, observation, 299)
    by_half = np.stack([agent.pilot_students.evaluate(half) for half in agent.halves])
    of_uniform = [number for number, pilot in enumerate(agent.pilots) if pilot.candidate.rule == 0]
    half_0, half_1, without = by_half[:, of_uniform].T
    assert half_0[0] > without[0] + 0.05
    assert half_0[0] > half_0[1]
    assert half_1[1] > without[1] + 0.05
    assert half_1[1] > half_1[0]


def test_the_record_has_the_scores(tmp_path):
    record = run_trial(Trial("digits", "piloted(rules=uniform)", 0, settings=SETTINGS), tmp_path)
    assert set(record["learned"]["scores"]) == {"crossfit_credit", "uniform"}
    rows, batch, updates = 64, 32, 8
    assert record["student_forward_examples"] >= 4 * updates * batch + 5 * rows, "two students and two pilots, and their scores"


def test_a_record_of_labels_that_may_teach_names_every_way(tmp_path):
    record = run_trial(Trial("digits", "piloted(rules=uniform)", 0, settings={**SETTINGS, "reward_ce": 1.0}), tmp_path)
    names = [f"{name} {how} labels" for how in ("with", "without") for name in ("crossfit_credit", "uniform")]
    assert list(record["learned"]["scores"]) == names
    assert record["learned"]["chosen"] in names


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("piloted(learner=uniform)", "'uniform' has no method weigh"),
        (f"piloted(learner={__name__}:WeighsAlone)", "has no method act"),
        ("piloted(rules=reinforce)", "'reinforce' in rules is not a rule"),
        ("piloted(rules=oracle)", "rule 'oracle' reads 'privileged', more than the 'reward labels' of piloted"),
        ("piloted(rules=lookahead)", "rule 'lookahead' reads more of a student than its mini-batches"),
        ("piloted(rules=unifrom)", "piloted: rules='unifrom': unknown policy 'unifrom'"),
        ("piloted(rules=)", "name some"),
        ("piloted(margin=-1)", "margin"),
        ("piloted(learner=crossfit_credit(rate=-1))", "rate"),
    ],
)
def test_options_that_cannot_work_are_refused(policy, message):
    with pytest.raises(InputError, match=message):
        make(policy)


class WeighsAlone:
    access = "reward labels"

    def __init__(self, context, seed=0):
        self.context = context

    def weigh(self, batch):
        return np.full((batch.num_rows, batch.num_teachers), 0.25, dtype=np.float32)


class NotNormalised:
    """A rule whose weights are not normalised."""

    access = "teacher outputs"

    def __init__(self, context, seed=0, weights=1.0):
        self.weights = torch.tensor([weights, 1.0, 1.0, 1.0], requires_grad=True)

    def decide(self, batch):
        return self.weights.expand(batch.num_rows, -1)


class WrongShape(NotNormalised):
    def decide(self, batch):
        return self.weights[:1].expand(batch.num_rows)


def test_weights_of_a_rule_are_normalised_and_without_gradient():
    agent, weights = taught(f"piloted(rules={__name__}:NotNormalised(weights=5.0))", [0.1, 0.9])
    assert np.allclose(weights[8:], [0.625, 0.125, 0.125, 0.125])
    rule_weights = agent._weights_for(0, agent.context.batch())
    assert np.allclose(rule_weights, [0.625, 0.125, 0.125, 0.125])
    assert not rule_weights.requires_grad


@pytest.mark.parametrize(
    ("rule", "message"),
    [("WrongShape", r"returns weights of shape \(32,\), expected \(32, 4\)"), ("NotNormalised(weights=-1.0)", "negative, or 0 for all")],
)
def test_weights_that_cannot_be_taught_are_refused(rule, message):
    _, agent, observation = on_trial(f"piloted(rules={__name__}:{rule})")
    with pytest.raises(InputError, match=message):
        agent.act(observation)


def test_students_that_cannot_be_taught_at_once_are_refused():
    _, agent = make(student=f"{__name__}:Normalised")
    agent.begin_episode(learning=True)
    with pytest.raises(InputError, match="policy 'piloted' teaches 2 students of its own at once; use another policy"):
        agent.act({})


class Normalised(torch.nn.Module):
    """A student with a BatchNorm."""

    def __init__(self, task):
        super().__init__()
        inputs = task.train.inputs[0].size
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, 8), torch.nn.BatchNorm1d(8))
        self.classifier = torch.nn.Linear(8, task.num_classes)

    def forward(self, pixel_values):
        features = self.body(pixel_values)
        return self.classifier(features), features


def test_one_label_cannot_teach_and_score():
    with pytest.raises(InputError, match="use at least 2"):
        make(reward_labels=1)


def test_a_state_of_other_candidates_is_refused():
    _, agent = make("piloted(rules=uniform)", reward_ce=1.0)
    _, without_labels = make("piloted(rules=uniform)")
    with pytest.raises(InputError, match="it was saved with other candidates than crossfit_credit, uniform; use the same reward_ce"):
        without_labels.load_state(agent.state())
    agent.scores = np.array([0.1, 0.2, 0.9, 0.3])
    agent._choose()
    _, again = make("piloted(rules=uniform)", reward_ce=1.0)
    again.load_state(agent.state())
    assert again.chosen == agent.chosen == ("crossfit_credit without labels", None, False)
