"""Events for TensorBoard say what the record and the trace say, also for populations and after a resume."""

from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_env.analysis.traces import read_trace
from kd_env.benchmark.recorder import Recorder
from kd_env.benchmark.run_trial import make_env, run_trials
from kd_env.benchmark.tensorboard_log import TensorBoardLog
from kd_env.benchmark.trial import Trial

SETTINGS = {"updates": 40, "validation_every": 20}


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


@pytest.mark.long
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_scalars_are_those_of_record_and_trace(tmp_path, seeds):
    trials = [Trial("digits", "gradient_credit", seed, settings=SETTINGS, tensorboard=True) for seed in seeds]
    records = run_trials(trials, tmp_path, lambda _: None)
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == sorted(f"gradient_credit-seed-{trial.seed}-{trial.id[-8:]}" for trial in trials)
    for seed, folder in enumerate(folders):
        logged, record = scalars(folder), records[seed]
        curve = {point["update"]: point["validation"] for point in record["curve"]}
        assert logged["validation/accuracy"] == pytest.approx(curve)
        assert sum(logged["train/reward"].values()) * 10 == pytest.approx(record["reward_sum"], rel=1e-4, abs=1e-6)
        rates = [np.mean(list(logged[f"selection/{name}"].values())) for name in record["teachers"]]
        assert rates == pytest.approx(record["selection_rate"], abs=1e-5)
        trace = read_trace(tmp_path / "traces" / f"{record['trial']}.parquet")
        weights = trace[trace["update"] < 10].groupby("teacher")["weight"].sum() / (10 * 32)
        first = [logged[f"selection/{name}"][10] for name in record["teachers"]]
        assert first == pytest.approx([weights.get(k, 0.0) for k in range(len(first))], abs=1e-5)


@pytest.mark.long
def test_a_resumed_log_replaces_what_came_after_the_checkpoint(tmp_path):
    """The process died after update 40; it goes on at 20, with other rewards."""
    trial = Trial("digits", "uniform", 0, settings=SETTINGS, tensorboard=True)
    run_trials([trial], tmp_path, lambda _: None)
    env = make_env(trial)
    selection = env.selection
    log = TensorBoardLog(tmp_path, trial, selection, 0, Recorder(selection))
    before = scalars(log.folder)["train/cross_entropy"]
    assert list(before) == [10, 20, 30, 40]
    env.reset(seed=0)
    for update in range(30):
        if update == 20:
            selection.listeners.append(log)
        action = np.zeros_like(env.action_space.sample())
        action[:, 0] = 1  # the first teacher alone
        env.step(action)
    log.close()
    after = scalars(log.folder)
    assert list(after["train/cross_entropy"]) == [10, 20, 30]
    assert {step: after["train/cross_entropy"][step] for step in (10, 20)} == {step: before[step] for step in (10, 20)}
    assert after[f"selection/{selection.pool.names[0]}"] == pytest.approx({10: 0.25, 20: 0.25, 30: 1.0}, abs=1e-3)


def steps(numbers, first=0):
    """Steps of one student with four examples, of which the last two have no label; number ``n`` has the loss and reward ``n``."""
    for number in numbers:
        ids, values = np.arange(4), np.array([number, number, 0.0, 0.0])
        batch = SimpleNamespace(update=np.array([number]), example_ids=ids)
        weights = np.full((4, 2), 0.5)
        yield SimpleNamespace(
            active=[True], diverged=[False], validation=None, batch=batch, weights=weights, student_ce=values, rewards=np.full(4, number)
        )


def log_of(tmp_path, updates):
    labels = np.array([0, 1, -1, -1])
    selection = SimpleNamespace(
        pool=SimpleNamespace(names=("one", "two")),
        num_students=1,
        data=SimpleNamespace(task=SimpleNamespace(train=SimpleNamespace(labels=labels))),
        settings=SimpleNamespace(distillation=SimpleNamespace(updates=updates)),
    )
    trial = Trial("digits", "uniform", 0, settings=SETTINGS)
    return TensorBoardLog(tmp_path, trial, selection, 0, SimpleNamespace(finished=None))


def test_the_last_updates_are_logged_and_unlabelled_examples_left_out(tmp_path):
    log = log_of(tmp_path, 14)
    for step in steps(range(14)):
        log(step)
    log.close()
    assert scalars(log.folder)["train/cross_entropy"] == pytest.approx({10: 4.5, 14: 11.5})


def test_a_mean_that_a_stop_cut_is_not_logged(tmp_path):
    log = log_of(tmp_path, 40)
    for step in steps(range(12, 30)):
        log(step)
    log.close()
    assert scalars(log.folder)["train/reward"] == pytest.approx({30: 24.5})


def test_nothing_is_logged_unless_asked(tmp_path):
    run_trials([Trial("digits", "uniform", 0, settings={"updates": 3})], tmp_path, lambda _: None)
    assert not (tmp_path / "tensorboard").exists()
