"""A trial's record and trace: a function of the trial alone, complete, and independent of the test split."""

import dataclasses
import functools
import gc
import types

import numpy as np
import pytest
from trial_records import comparable

from kd_env import tasks
from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.benchmark.report import write_report
from kd_env.benchmark.run_trial import make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.tasks import Task
from kd_env.tasks.digits import load as load_digits

NAMES = [*registry.POLICIES, "sb3:PPO(n_steps=4,batch_size=32)"]
NAMES.remove("iakd")  # its student must match a teacher


def settings_of(policy, **settings):
    return {"updates": 20, **({"kd_weight": 0.5} if policy == "no_teacher" else {}), **settings}


@pytest.mark.long
@pytest.mark.parametrize("policy", ["random_single", "reinforce", "gradient_credit", "sb3:PPO(n_steps=4,batch_size=32)"])
def test_equal_trials_give_equal_records_and_traces(policy, tmp_path):
    trial = Trial("digits", policy, 1, settings=settings_of(policy))
    first, second = run_trial(trial, tmp_path / "first"), run_trial(trial, tmp_path / "second")
    assert comparable(first) == comparable(second)
    traces = [(tmp_path / folder / "traces" / f"{trial.id}.parquet").read_bytes() for folder in ("first", "second")]
    assert traces[0] == traces[1]
    other = run_trial(dataclasses.replace(trial, seed=2), tmp_path / "first")
    assert other["curve"] != first["curve"]
    assert other["trial"] != first["trial"]


def test_a_record_has_every_field_and_counts_right(tmp_path):
    record = run_trial(Trial("digits", "most_confident", 0, settings={"updates": 20, "reward_labels": 64}), tmp_path)
    assert set(records.FIELDS) <= set(record)
    assert record["teachers"] == ["upright", "inverted", "mirrored", "transposed"]
    assert record["student_forward_examples"] == 21 * 32, "the batch observed after the last update counts too"
    assert record["teacher_forward_examples"] == 4 * (3588 + 1200 + 800)
    assert record["reward_labels"] == 64
    assert record["reward_forward_examples"] == 2 * 64, "once before the first update and once after the last"
    assert sum(record["selection_rate"]) == pytest.approx(1.0)
    assert record["weight_entropy"] == pytest.approx(0.0)
    assert record["curve"][-1]["update"] == 20
    assert record["curve"][-1]["validation"] == record["validation"]
    assert not record["diverged"]


@pytest.mark.long
def test_a_trial_without_test_never_evaluates_it_and_has_another_id(tmp_path, monkeypatch):
    trial = Trial("digits", "uniform", 0, settings={"updates": 3})
    record = run_trial(trial, tmp_path)
    without_test = dataclasses.replace(trial, test=False)
    monkeypatch.setattr("kd_env.benchmark.run_trial.evaluate_on_test", lambda *_: pytest.fail("test was evaluated"))
    other = run_trial(without_test, tmp_path)
    assert other["test"] is None
    assert other["trial"] != record["trial"]
    fields, other_fields = comparable(record), comparable(other)
    assert {key for key in fields if fields[key] != other_fields[key]} == {"trial", "test", "test_split", "config"}
    for each in (record, other):
        records.append(tmp_path, each)
    assert write_report(tmp_path).with_suffix(".md").read_text().count("The test split was not evaluated") == 1


def test_selection_statistics_by_hand(tmp_path):
    uniform = run_trial(Trial("digits", "uniform", 0, settings={"updates": 3}), tmp_path)
    assert uniform["selection_rate"] == pytest.approx([0.25] * 4)
    assert uniform["weight_entropy"] == pytest.approx(1.0)
    oracle = run_trial(Trial("digits", "oracle", 0, settings={"updates": 3}), tmp_path)
    taught = read_trace(tmp_path / "traces" / f"{oracle['trial']}.parquet")["example_id"]
    groups = tasks.load("digits").train.groups[taught]
    assert len(groups) == 3 * 32
    assert oracle["selection_rate"] == pytest.approx((np.bincount(groups) / 96).tolist(), abs=1e-6)
    no_teacher = run_trial(Trial("digits", "reward_supervised", 0, settings={"updates": 3}), tmp_path)
    assert no_teacher["selection_rate"] == [0.0] * 4


@pytest.mark.long
@pytest.mark.parametrize("steps", [16, 64])
def test_the_record_is_of_the_first_student_when_a_learner_overshoots(steps, tmp_path):
    """PPO takes whole rollouts: with 64 steps and a budget of 20 it starts four students."""
    policy = f"sb3:PPO(n_steps={steps},batch_size=32,n_epochs=1)"
    trial = Trial("digits", policy, 5, settings={"updates": 20})
    record = run_trial(trial, tmp_path)
    plain = Trial("digits", "sb3:PPO(n_steps=20,batch_size=32,n_epochs=1)", 5, settings={"updates": 20})
    assert record["student_forward_examples"] == run_trial(plain, tmp_path)["student_forward_examples"]
    assert record["curve"][-1] | {"update": 20} == record["curve"][-1]
    assert record["curve"][-1]["validation"] == record["validation"]


def test_a_diverged_trial_has_a_record_without_scores(tmp_path):
    record = run_trial(Trial("digits", "uniform", 0, settings={"updates": 20, "optimizer": "sgd(lr=1e30)"}), tmp_path)
    assert record["diverged"]
    assert record["test"] is record["validation"] is record["reward_split"] is None
    records.append(tmp_path, record)
    assert records.read(tmp_path)[0]["diverged"]


class Lazy:
    def __init__(self, env, seed):
        self.seed = seed

    def act(self, observation):
        return np.zeros((len(observation["progress"]), 4))

    def learn(self, env, num_updates):
        env.reset(seed=self.seed)


class WrongShape(Lazy):
    learn = None

    def act(self, observation):
        return np.ones(3)


class Mute:
    def __init__(self, env, seed):
        pass


class Failing(Lazy):
    def __init__(self, env, seed):
        raise TypeError("my own mistake")


class Ordered(Lazy):
    access = "everything"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("Lazy", "its learn() stopped before 20 updates; it must drive env that long"),
        ("WrongShape", "action 'subset': expected 128 numbers for 32 actions over 4 teachers, got shape (3,)"),
        ("Mute", "a Mute has neither act(observation)"),
        ("Failing", "TypeError: my own mistake ("),
        ("Ordered", "access='everything'; expected one of nothing, teacher outputs"),
        ("Absent", "cannot be imported"),
        ("SIZES", "cannot be called"),
    ],
)
def test_a_plug_in_policy_that_cannot_work_is_one_line(policy, message, tmp_path):
    with pytest.raises(InputError) as refused:
        run_trial(Trial("digits", f"{__name__}:{policy}", 0, settings={"updates": 20}), tmp_path)
    assert message in str(refused.value)
    assert not list(tmp_path.rglob("*.parquet"))


SIZES = {"train": 3588}


# the test split cannot be reached


@functools.cache
def poisoned():
    """The digits with a test split of garbage, under a name that has the same pools."""
    task = load_digits()
    rng = np.random.default_rng(0)
    garbage = dataclasses.replace(
        task.test,
        inputs=rng.normal(100.0, 50.0, task.test.inputs.shape).astype(np.float32),
        labels=np.zeros_like(task.test.labels),
        groups=rng.permutation(task.test.groups),
    )
    return dataclasses.replace(task, test=garbage)


ABOUT_TEST = ("test", "test_split", "trial", "env")
OF_EACH_ACCESS = [
    "uniform", "most_confident", "camkd", "mutual_learning", "lr_ensemble", "amtml", "akd(training_episodes=1)", "reinforce",
    "gradient_credit", "lookahead", "mtkd_rl", "mmkd", "router", "uniform_reward_ce", "oracle", "sb3:PPO(n_steps=4,batch_size=32)",
]  # fmt: skip


def test_these_are_of_each_access():
    assert {registry.find(policy).access for policy in OF_EACH_ACCESS} == {registry.find(policy).access for policy in NAMES}


@pytest.mark.parametrize("policy", OF_EACH_ACCESS)
def test_a_poisoned_test_split_changes_the_test_score_alone(policy, tmp_path):
    settings = settings_of(policy, updates=8, reward_labels=100)
    clean, spoiled = (
        run_trial(Trial(task, policy, 0, settings=settings), tmp_path / task[:6]) for task in ("digits", f"{__name__}:poisoned")
    )
    for record in (clean, spoiled):
        assert record["task"] == "digits"
    assert clean["test"] != spoiled["test"]
    for name in ABOUT_TEST:
        clean.pop(name), spoiled.pop(name)
    assert comparable(clean) == comparable(spoiled)


OPAQUE = (
    types.ModuleType,
    types.BuiltinFunctionType,
    type,
    types.FrameType,
    functools.partial,
    types.GetSetDescriptorType,
)


def reachable(root):
    """Return every object that attributes, items and what functions close over lead to; modules, classes and globals are not followed."""
    seen, queue = {}, [root]
    while queue:
        value = queue.pop()
        if id(value) in seen or isinstance(value, OPAQUE):
            continue
        seen[id(value)] = value
        queue += [value.__closure__, value.__defaults__] if isinstance(value, types.FunctionType) else gc.get_referents(value)
    return list(seen.values())


WITHOUT_A_TASK = (
    "actor_critic",
    "ppo",
    "gradient_credit",
    "akd",
    "akd_hard",
    "exp3",
    "linucb",
    "sliding_ucb",
)  # they keep only what they observe


@pytest.mark.usefixtures("fit_stacks_once")
@pytest.mark.parametrize("policy", NAMES)
def test_no_object_that_a_policy_can_reach_holds_test(policy):
    env = make_env(Trial("digits", policy, 0, settings=settings_of(policy, reward_labels=32)))
    built = registry.find(policy).build(env, 0)
    env.reset(seed=0)
    objects = reachable(built)
    held = [thing for thing in objects if isinstance(thing, Task)]
    assert any(thing is env.selection.data.task for thing in held) == (policy not in WITHOUT_A_TASK), "the walk reaches what is there"
    assert all(thing.test is None for thing in [*held, *(t for t in reachable(env) if isinstance(t, Task))])
