"""Seeds that are taught together give what they give alone, whatever the policy; what cannot be taught together is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from kd_env.benchmark import records
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run import _together, run
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies.context import PolicyContext

pytestmark = pytest.mark.long

SETTINGS = {"updates": 12, "precision": "float64", "reward_labels": 32, "validation_every": 4}
SAME = (
    "trial", "policy", "access", "seed", "test", "validation", "reward_split", "reward_labels", "student_forward_examples",
    "reward_forward_examples", "diverged", "env", "bank",
)  # fmt: skip
POLICIES = [
    "uniform", "random_single", "router", "stacking", "held_credit", "crossfit_credit", "piloted", "gradient_credit", "reinforce",
    "akd(training_episodes=1)", "akd_hard(training_episodes=2)", "uniform_reward_ce", "camkd", "amtml", "uncertainty", "exp3", "aekd",
    "actor_critic", "ppo(rollout=4)",
]  # fmt: skip


STACKED = ("held_credit", "crossfit_credit", "gradient_credit")
"""Policies whose networks, in float32, are computed in batched passes, which round differently. Students are in float64."""


def assert_as_alone(trials, together, folder, rounding=1e-9):
    for trial, record in zip(trials, together, strict=True):
        alone = run_trial(trial, folder)
        assert {name: record[name] for name in SAME} == {name: alone[name] for name in SAME}
        np.testing.assert_allclose(record["selection_rate"], alone["selection_rate"], atol=rounding)
        assert record["reward_sum"] == pytest.approx(alone["reward_sum"], abs=10.0 * rounding)
        assert record["weight_entropy"] == pytest.approx(alone["weight_entropy"], abs=rounding)
        assert record["selection_entropy"] == pytest.approx(alone["selection_entropy"], abs=rounding)
        assert [point["validation"] for point in record["curve"]] == [point["validation"] for point in alone["curve"]]


@pytest.mark.usefixtures("fit_stacks_once")
@pytest.mark.parametrize("policy", POLICIES)
def test_together_is_as_alone(policy, tmp_path):
    trials = [Trial("digits", policy, seed, settings=SETTINGS) for seed in (4, 0)]
    together = run_trials(trials, tmp_path / "together", lambda _: None)
    assert_as_alone(trials, together, tmp_path / "alone", 1e-7 if policy in STACKED else 1e-9)
    assert len({record["curve"][0]["train_loss"] for record in together}) == 2, "the seeds differ"


def test_a_record_of_several_replays_alone(tmp_path):
    trials = [Trial("digits", "camkd", seed, settings={"updates": 12}) for seed in (0, 1)]
    for record in run_trials(trials, tmp_path, lambda _: None):
        records.append(tmp_path, record)
        assert record["config"]["population"] == 2
        assert replay(tmp_path, record["trial"]) == []


# a student that diverges


@pytest.mark.parametrize("episodes", [0, 1, 2])
def test_a_student_that_diverges_does_not_touch_the_others(episodes, tmp_path):
    """Its last decision is repeated to what begins in its place, which diverges again and again; none of that counts for anybody."""
    trials = [Trial("digits", f"diverging:BreaksSeed4(training_episodes={episodes})", seed, settings=SETTINGS) for seed in (0, 4, 7)]
    together = run_trials(trials, tmp_path / "together", lambda _: None)
    assert [record["diverged"] for record in together] == [False, episodes == 0, False]
    assert_as_alone(trials, together, tmp_path / "alone")


# what is refused


class OwnsItsLoop:
    """Teaches fewer mini-batches the higher its seed."""

    def __init__(self, env, seed):
        self.seed = seed

    def act(self, observation):
        return np.ones((len(observation["progress"]), 4), dtype=np.int8)

    def learn(self, env, num_updates):
        env.reset(seed=self.seed)
        for _ in range(num_updates - self.seed):
            env.step(self.act({"progress": np.zeros((env.num_envs, 1))}))


@pytest.mark.parametrize(
    "policy",
    [f"{__name__}:OwnsItsLoop", "sb3:PPO(n_steps=4,batch_size=32)", "mtkd_rl", "lookahead", "mmkd", "reinforce(selector_warmup=2)"],
)
def test_what_teaches_one_student_at_a_time_is_refused_and_named(policy, tmp_path):
    trials = [Trial("digits", policy, seed, settings={"updates": 12}) for seed in (0, 1)]
    with pytest.raises(InputError, match=r"population: policy .* teaches one student at a time; run it without --population") as refused:
        run_trials(trials, tmp_path, lambda _: None)
    assert repr(trials[0].resolved.policy.name) in str(refused.value)
    assert [len(unit) for unit in _together(trials, 2)] == [1, 1], "a run puts them in units of their own"


def test_a_loop_that_stops_before_the_end_is_named(tmp_path):
    trial = Trial("digits", f"{__name__}:OwnsItsLoop", 5, settings={"updates": 12})
    with pytest.raises(InputError, match=r"OwnsItsLoop': its learn\(\) stopped before 12 updates"):
        run_trial(trial, tmp_path)
    whole = run_trial(dataclasses.replace(trial, seed=0), tmp_path)
    assert whole["curve"][-1]["update"] == 12


def test_a_policy_of_its_own_loop_runs_its_seeds_one_by_one(tmp_path, capsys):
    trials = [Trial("digits", "sb3:PPO(n_steps=4,batch_size=32)", seed, settings={"updates": 12}) for seed in (0, 1)]
    run(trials, tmp_path, Progress(quiet=True), population=2)
    seeds = {record["seed"]: record["config"].get("population") for record in records.read(tmp_path)}
    assert seeds == {0: None, 1: None}


class FailsAtSeed1:
    """Fails in the middle, for one seed."""

    def __init__(self, context, seed=0):
        self.seed = seed

    def act(self, observation):
        if self.seed == 1 and observation["progress"][0] > 0.4:
            raise ZeroDivisionError("in the policy")
        return np.ones((len(observation["progress"]), 4), dtype=np.int8)


def test_an_error_in_a_policy_is_raised(tmp_path):
    trials = [Trial("digits", f"{__name__}:FailsAtSeed1", seed, settings={"updates": 12}) for seed in (0, 1, 2)]
    with pytest.raises(InputError, match=r"FailsAtSeed1, act\(\): ZeroDivisionError: in the policy \(.*, line \d+\)"):
        run_trials(trials, tmp_path, lambda _: None)


class ReachesForCredit(FailsAtSeed1):
    """Reads what only a student that is taught alone has."""

    access = "privileged"

    def __init__(self, context, seed=0, resource="credit"):
        self.context, self.resource = context, resource

    def act(self, observation):
        read = {
            "student": lambda: self.context.student,
            "credit": lambda: self.context.credit(("response",)),
            "rehearsal": self.context.rehearsal,
        }
        read[self.resource]()
        return np.ones((len(observation["progress"]), 4), dtype=np.int8)


@pytest.mark.parametrize("resource", ["student", "credit", "rehearsal"])
def test_what_only_a_lone_student_has_is_named(resource, tmp_path):
    policy = f"{__name__}:ReachesForCredit(resource={resource})"
    trials = [Trial("digits", policy, seed, settings={"updates": 12}) for seed in (0, 1)]
    with pytest.raises(InputError, match=rf"ReachesForCredit.*reads context\.{resource}, which students taught together do not have; .*"):
        run_trials(trials, tmp_path, lambda _: None)
    assert run_trial(trials[0], tmp_path)["curve"][-1]["update"] == 12, "alone it may"


def test_only_seeds_are_put_together():
    base = Trial("digits", "uniform", 0, settings={"updates": 5})
    trials = [dataclasses.replace(base, seed=seed, policy=policy) for seed in range(3) for policy in ("uniform", "camkd")]
    units = [[(trial.policy, trial.seed) for trial in unit] for unit in _together(trials, 2)]
    assert units == [[("uniform", 0), ("uniform", 1)], [("camkd", 0), ("camkd", 1)], [("uniform", 2)], [("camkd", 2)]]
    assert [len(unit) for unit in _together(trials, 1)] == [1] * 6


def test_thousands_of_trials_are_not_compared_with_each_other(monkeypatch):
    monkeypatch.setattr(Trial, "__eq__", lambda *_: pytest.fail("a comparison of each trial with each takes minutes"))
    trials = [Trial("digits", "uniform", seed, settings={"updates": 5}) for seed in range(300)]
    assert [unit[0].seed for unit in _together(trials, 1)] == list(range(300))


# the parts of a population that a policy sees


@pytest.mark.parametrize("access", ["gradient"])
def test_each_policy_sees_the_mini_batch_of_its_own_student(access):
    env = make_env(Trial("digits", "uniform", 0, settings={"updates": 8, "knowledge": "response,layer"}), 3)
    env.reset(seed=[5] * 32 + [6] * 32 + [7] * 32)
    run, whole = env.selection.distillation, env.selection.distillation.observe()
    for student in range(3):
        rows = slice(32 * student, 32 * (student + 1))
        context = PolicyContext(env, "a policy", access, student)
        batch = context.batch()
        assert (batch.num_rows, batch.num_teachers, context.num_envs, context.num_students) == (32, 4, 32, 1)
        assert context.settings.distillation.num_students == 1
        assert np.array_equal(batch.example_ids, whole.example_ids[rows])
        assert torch.equal(batch.labels, whole.labels[rows])
        assert torch.equal(batch.teacher_logits, whole.teacher_logits[rows])
        assert all(torch.equal(a, b[rows]) for a, b in zip(batch.teacher_features, whole.teacher_features, strict=True))
        assert all(torch.equal(a, b[rows]) for a, b in zip(batch.teacher_layers, whole.teacher_layers, strict=True))
        assert torch.equal(batch.student.logits, whole.student.logits[rows])
        assert torch.equal(batch.student_output.layers, run.student_output().layers[rows])
        assert batch.student_output.logits.requires_grad
        assert not batch.student.logits.requires_grad


@pytest.mark.parametrize("policy", ["router", "stacking"])
def test_each_policy_sees_teachers_calibrated_on_its_own_labels(policy, tmp_path):
    settings = {**SETTINGS, "student": "mlp(width=8)", "calibrate_teachers": True}
    trials = [Trial("digits", policy, seed, settings=settings) for seed in (0, 1, 2)]
    assert_as_alone(trials, run_trials(trials, tmp_path, lambda _: None), tmp_path)
