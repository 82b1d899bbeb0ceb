"""The bandits as policies over teachers: the seed, saving, short trials, and what they refuse."""

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces
from three_arms import BANDITS, Arms, play

from agents.exp3 import EXP3
from agents.linucb import LinUCB
from agents.sliding_ucb import SlidingUCB
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import make_policy, run_episode
from kd_env.testing import check_policy


@pytest.mark.parametrize("kind", BANDITS)
def test_the_seed_decides(kind):
    first, same, other = (play(kind, 200, seed)[0].pulled for seed in (3, 3, 4))
    assert first == same
    assert first != other


@pytest.mark.parametrize("kind", BANDITS)
def test_what_was_learned_is_saved(kind, tmp_path):
    env, agent = play(kind, 120, 1, memory=40)
    agent.save(str(tmp_path / "bandit"))
    again = kind.load(str(tmp_path / "bandit"), env)
    assert again.options == agent.options
    assert list(again.range.recent) == list(agent.range.recent)
    assert len(again.range.recent) == 40
    for name, value in agent.learned().items():
        assert np.array_equal(again.learned()[name], value), name
    fresh = kind(env, 1).learned()
    assert not any(np.array_equal(fresh[name], value) for name, value in again.learned().items()), "it had learned something"


@pytest.mark.parametrize("kind", BANDITS)
def test_it_keeps_to_the_protocol(kind):
    check_policy(kind)
    assert kind.access == "reward scalar"
    assert kind.paper


@pytest.mark.parametrize("name", ["exp3", "linucb", "sliding_ucb"])
def test_it_teaches_text(name, tmp_path):
    task = "domains(train=160,reward=48,validation=32,test=16)"
    settings = {"updates": 6, "student": "tiny-bert(width=8,layers=1)", "batch_size": 8}
    record = run_trial(Trial(task, name, 0, "domains/experts", settings=settings), tmp_path)
    assert record["access"] == "reward scalar"
    assert sum(record["selection_rate"]) == pytest.approx(1.0)
    assert record["weight_entropy"] == 0.0, "one teacher per mini-batch"
    if name == "exp3":
        assert 0.9 < record["selection_entropy"] <= 1.0, "after six pulls it is nearly undecided"
    else:
        assert record["selection_entropy"] is None, "it chooses the largest upper bound, with certainty"


@pytest.mark.parametrize("name", ["exp3", "linucb", "sliding_ucb"])
def test_students_of_a_population_are_taught_as_alone(name, tmp_path):
    trials = [Trial("digits", name, seed, settings={"updates": 10, "precision": "float64"}) for seed in (0, 4)]
    together = run_trials(trials, tmp_path / "together", lambda _: None)
    for trial, record in zip(trials, together, strict=True):
        alone = run_trial(trial, tmp_path / "alone")
        assert record["selection_rate"] == alone["selection_rate"]
        assert record["reward_sum"] == pytest.approx(alone["reward_sum"], rel=1e-6)


def test_a_phase_is_one_decision(tmp_path):
    env = make_env(Trial("digits", "sliding_ucb", 0, settings={"updates": 20, "updates_per_phase": 5}))
    agent = make_policy(SlidingUCB, env, 0)
    run_episode(env, agent, 0)
    assert len(agent.pulls) == 4
    assert env.finished.update.tolist() == [20]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda env: EXP3(env, gamma=0.0), r"exp3\(gamma=0.0\): expected a number above 0, at most 1"),
        (lambda env: EXP3(env, gamma=1.5), r"exp3\(gamma=1.5\)"),
        (lambda env: LinUCB(env, alpha=-1), r"linucb\(alpha=-1\): expected a number of at least 0"),
        (lambda env: LinUCB(env, ridge=0), r"linucb\(ridge=0\): expected a number above 0"),
        (lambda env: SlidingUCB(env, window=2), r"sliding_ucb\(window=2\): expected a whole number of at least 3"),
        (lambda env: SlidingUCB(env, xi="much"), r"sliding_ucb\(xi='much'\)"),
        (lambda env: SlidingUCB(env, memory=1), r"SlidingUCB\(memory=1\): expected a whole number of at least 2"),
        (lambda env: EXP3(SimpleNamespace(num_envs=32, single_action_space=spaces.Discrete(3))), "32 slots of .*granularity=batch"),
        (lambda env: EXP3(SimpleNamespace(num_envs=1, single_action_space=spaces.MultiBinary(3))), "action=one"),
    ],
)
def test_what_cannot_be_used_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build(Arms(0))
