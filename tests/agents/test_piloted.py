"""``piloted``: who teaches the student that counts, by the scores of the pilots."""

import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import Transition, registry

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]


def make(policy="piloted", **settings):
    env = make_env(Trial("digits", policy, 0, settings={"updates": 8, "reward_labels": 64, "student": "mlp(width=8)", **settings}))
    agent = registry.find(policy).build(env, 0)
    observation, _ = env.reset(seed=0)
    return env, agent, observation


def play(env, agent, observation, steps):
    """Teach for some steps; return the actions."""
    actions = []
    for _ in range(steps):
        action = agent.act(observation)
        following, reward, terminated, _, info = env.step(action)
        agent.update(Transition(observation, action, reward, following, terminated, info))
        observation = following
        actions.append(action)
    return actions


def with_metrics(agent, *metrics):
    """Let the pilots have these metrics at the next checks."""
    agent._teach_pilots()
    remaining = iter(metrics)
    agent.pilots.evaluate = lambda rows: np.array(next(remaining), dtype=np.float64)


def test_the_leader_by_hand():
    _, agent, _ = make("piloted(rules=uniform;router,margin=1.0)", updates=8)
    error = (0.8 * 0.2 / 64) ** 0.5  # 0.05
    with_metrics(agent, [0.8, 0.71, 0.8 + error - 1e-6], [0.8, 0.71, 0.8 + error + 3e-6], [0.8, 1.0, 0.8], [1.0, 0.0, 0.0])
    leaders = []
    for progress in (0.25, 0.5, 0.75, 1.0):
        agent._check(progress)
        leaders.append(agent.leader)
    assert leaders == [0, 2, 1, 0], "scores are halfway between the last score and the metric"
    assert [check["leader"] for check in agent.learned_summary()] == ["learner", "router", "uniform", "learner"]


def test_a_pilot_that_has_diverged_does_not_lead_and_is_not_followed():
    _, agent, _ = make("piloted(rules=uniform;router)")
    with_metrics(agent, [0.1, 0.05, -np.inf], [-np.inf, 0.05, -np.inf])
    agent._check(0.5)
    assert agent.leader == 0
    agent._check(1.0)
    assert agent.leader == 1
    assert agent.history[1]["metrics"] == [None, 0.05, None], "infinity is not JSON"


def test_the_student_is_taught_by_the_leader():
    env, agent, observation = make("piloted(rules=uniform,checks=2)", updates=8)
    with_metrics(agent, [0.1, 0.9], [0.9, 0.1])
    actions = play(env, agent, observation, 7)
    taught = [env.selection.action_kind.decode(action, len(action)).weights for action in actions]
    assert [np.allclose(weights, 0.25) for weights in taught] == [False] * 3 + [True] * 4


def test_the_pilots_are_taught_what_they_stand_for():
    """The pilot of a rule ends with the weights of a student that the rule alone has taught."""
    _, agent, observation = make("piloted(rules=single:1)")
    env = agent.context._selection
    agent.act(observation)
    alone = agent._new_pilots()
    decision = agent.context.decision(
        dict.fromkeys(agent.context.terms, torch.eye(4)[1].expand(2 * env.settings.distillation.batch_size, 4))
    )
    alone.teach(decision)
    pilots, both = agent.pilots.state()["tensors"], alone.state()["tensors"]
    student = [name for name in both if name.startswith("student")]
    assert student
    assert all(torch.allclose(pilots[name][1], both[name][1], atol=1e-6) for name in student)
    assert not all(torch.allclose(pilots[name][0], both[name][0], atol=1e-6) for name in student)


def test_the_learner_learns_while_a_rule_leads():
    env, agent, observation = make("piloted(rules=uniform)")
    agent.leader = 1
    before = agent.learner.free[0].state()["residual"]
    before = {name: value.clone() for name, value in before.items()}
    play(env, agent, observation, 2)
    assert any(not torch.equal(value, before[name]) for name, value in agent.learner.free[0].state()["residual"].items())


def test_labels_that_teach_the_pilots_do_not_score_them():
    _, agent, _ = make(reward_ce=1.0)
    assert not set(agent.fit_rows) & set(agent.score_rows)
    assert sorted([*agent.fit_rows, *agent.score_rows]) == sorted(agent.context.reward_rows)
    assert agent._new_pilots()._run.reward_split.rows.tolist() == [agent.fit_rows.tolist()] * 2


def test_new_students_have_new_pilots():
    env, agent, observation = make()
    play(env, agent, observation, 2)
    agent.begin_episode(learning=True)
    assert agent.pilots is None
    assert agent.leader == 0
    assert agent.history == []


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("piloted(learner=uniform)", "'uniform' has no method weigh"),
        ("piloted(rules=reinforce)", "'reinforce' in rules is not a rule"),
        ("piloted(rules=)", "name some"),
        ("piloted(margin=-1)", "margin"),
        ("piloted(checks=0)", "checks"),
        ("piloted(learner=crossfit_credit(rate=-1))", "rate"),
    ],
)
def test_options_that_cannot_work_are_refused(policy, message):
    with pytest.raises(InputError, match=message):
        make(policy)


def test_one_label_cannot_teach_and_score():
    with pytest.raises(InputError, match="use at least 2"):
        make(reward_ce=1.0, reward_labels=1)
