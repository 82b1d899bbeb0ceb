"""Seeds taught together give what they give alone, whatever the policy."""

import dataclasses

import numpy as np
import pytest

from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run import _together
from kd_env.benchmark.run_trial import run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError

SETTINGS = {"updates": 24, "precision": "float64", "reward_labels": 256, "validation_every": 8}
SAME = (
    "trial", "policy", "access", "seed", "test", "validation", "reward_split", "reward_labels", "student_forward_examples",
    "reward_forward_examples", "diverged", "env", "bank",
)  # fmt: skip
POLICIES = [
    "uniform", "random_single", "router", "gradient_credit", "reinforce", "akd(training_episodes=1)", "uniform_reward_ce",
    "sb3:PPO(n_steps=4,batch_size=32)", "sb3:DQN(learning_starts=64,buffer_size=500)",
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
def test_together_is_as_alone(policy, tmp_path):
    trials = [Trial("digits", policy, seed, settings=SETTINGS) for seed in (4, 0, 7)]
    together = run_trials(trials, tmp_path / "together", lambda _: None)
    for trial, record in zip(trials, together, strict=True):
        alone = run_trial(trial, tmp_path / "alone")
        assert {name: record[name] for name in SAME} == {name: alone[name] for name in SAME}
        np.testing.assert_allclose(record["selection_rate"], alone["selection_rate"], atol=1e-9)
        assert record["reward_sum"] == pytest.approx(alone["reward_sum"], abs=1e-8)
        assert [point["validation"] for point in record["curve"]] == [point["validation"] for point in alone["curve"]]
    assert len({record["curve"][0]["train_loss"] for record in together}) == 3, "the seeds differ"


def test_a_record_of_several_replays_alone(tmp_path):
    trials = [Trial("digits", "camkd", seed, settings={"updates": 12}) for seed in (0, 1)]
    for record in run_trials(trials, tmp_path, lambda _: None):
        records.append(tmp_path, record)
        assert record["config"]["population"] == 2
        assert replay(tmp_path, record["trial"]) == []


class StopsEarly:
    """Teaches fewer mini-batches the higher its seed."""

    def __init__(self, env, seed):
        self.seed = seed

    def act(self, observation):
        return np.ones((len(observation["progress"]), 4), dtype=np.int8)

    def learn(self, env, num_updates):
        env.reset(seed=self.seed)
        for _ in range(num_updates - self.seed):
            env.step(self.act({"progress": np.zeros((env.num_envs, 1))}))


def test_one_that_stops_before_its_end_is_named_and_the_others_are_not_held_up(tmp_path):
    trials = [Trial("digits", f"{__name__}:StopsEarly", seed, settings={"updates": 12}) for seed in (0, 5)]
    with pytest.raises(InputError, match="stopped before 12 updates"):
        run_trials(trials, tmp_path, lambda _: None)


class Breaks(StopsEarly):
    """Fails in the middle, for one seed."""

    def act(self, observation):
        if self.seed == 1:
            raise ZeroDivisionError("in the policy")
        return super().act(observation)


def test_an_error_in_one_stops_all_and_is_raised(tmp_path):
    trials = [Trial("digits", f"{__name__}:Breaks", seed, settings={"updates": 12}) for seed in (0, 1, 2)]
    with pytest.raises(ZeroDivisionError, match="in the policy"):
        run_trials(trials, tmp_path, lambda _: None)


class ReachesIn(StopsEarly):
    """Wants more of its run than students taught together show."""

    def act(self, observation):
        self.selection.distillation.fork()

    def __init__(self, env, seed):
        self.seed, self.selection = seed, env.unwrapped.selection


def test_what_a_member_does_not_show_is_named(tmp_path):
    trials = [Trial("digits", f"{__name__}:ReachesIn", seed, settings={"updates": 12}) for seed in (0, 1)]
    with pytest.raises(InputError, match="reaches for its run's 'fork'"):
        run_trials(trials, tmp_path, lambda _: None)


def test_only_seeds_are_put_together():
    base = Trial("digits", "uniform", 0, settings={"updates": 5})
    trials = [dataclasses.replace(base, seed=seed, policy=policy) for seed in range(3) for policy in ("uniform", "camkd")]
    units = [[(one.policy, one.seed) for one in unit] for unit in _together(trials, 2)]
    assert units == [[("uniform", 0), ("uniform", 1)], [("camkd", 0), ("camkd", 1)], [("uniform", 2)], [("camkd", 2)]]
    assert [len(unit) for unit in _together(trials, 1)] == [1] * 6
