"""Events for TensorBoard say what the record and the trace say, also for populations and after a resume."""

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


def test_nothing_is_logged_unless_asked(tmp_path):
    run_trials([Trial("digits", "uniform", 0, settings={"updates": 3})], tmp_path, lambda _: None)
    assert not (tmp_path / "tensorboard").exists()
