"""Trials that are stopped between two updates and resumed, as Ctrl-C and the same command do."""

import pytest
import torch

from kd_env import interrupts
from kd_env.benchmark.checkpoints import CheckpointSettings
from kd_env.benchmark.rerun import COMPARED
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial

SETTINGS = {"updates": 14, "student": "mlp(width=8)", "batch_size": 8, "validation_every": 4}
OWN_SETTINGS = {
    "akd": {"updates_per_phase": 2, "exploration_bonus": 0.5},
    "akd_hard": {"updates_per_phase": 2, "exploration_bonus": 0.5},
    "mtkd_rl": {"kd_weight": 0.5},
    "mtkd_rl_released": {"kd_weight": 0.5},
    "mmkd(buffer=16,every=2)": {},
    "distilbert": {"kd_weight": 0.5},
    "no_teacher": {"kd_weight": 0.5},
    "random_hard": {"updates_per_phase": 2},
    "random_soft": {"updates_per_phase": 2},
}


def trial(policy="reinforce", seed=3, **changes):
    name = policy.partition("(")[0]
    rehearses = {"reward": "mixed"} if "selector_warmup" in policy else {}
    settings = {**SETTINGS, **OWN_SETTINGS.get(policy, OWN_SETTINGS.get(name, {})), **rehearses, **changes}
    return Trial("digits", policy, seed, settings=settings, test=False, save_policy=True)


class Stop:
    """Stops the check after the n-th between two updates, as Ctrl-C does."""

    def __init__(self, number):
        self.asked, self.number = 0, number

    def __call__(self):
        self.asked += 1
        return self.asked > self.number


def run(trials, folder, monkeypatch, stops=(), minutes=5.0):
    """Run trials that are stopped some times; return their records, weights, and the messages."""
    messages, weights = [], {}

    def keep(trial, finished):
        weights[trial.id] = [tensor.clone() for tensor in finished.student.parameters]

    kept = CheckpointSettings(folder, minutes, messages.append)
    for number in stops:
        monkeypatch.setattr(interrupts, "interrupted", Stop(number))
        with pytest.raises(KeyboardInterrupt):
            run_trials(trials, folder, lambda _: None, keep, kept)
    monkeypatch.setattr(interrupts, "interrupted", lambda: False)
    return run_trials(trials, folder, lambda _: None, keep, kept), weights, messages


def assert_equal(first, second, trials, folders):
    """Compare records, weights, traces and saved policies."""
    for record, other in zip(first[0], second[0], strict=True):
        assert {name: record[name] for name in COMPARED} == {name: other[name] for name in COMPARED}
    for trial_id in (checked.id for checked in trials):
        assert all(map(torch.equal, first[1][trial_id], second[1][trial_id]))
        for name in (f"traces/{trial_id}.parquet", f"policies/{trial_id}.agent"):
            paths = [folder / name for folder in folders]
            assert paths[0].exists() == paths[1].exists()
            assert not paths[0].exists() or paths[0].read_bytes() == paths[1].read_bytes(), name


def check_stops(trials, tmp_path, monkeypatch, stops=(4, 6)):
    folders = tmp_path / "whole", tmp_path / "stopped"
    whole, stopped = run(trials, folders[0], monkeypatch), run(trials, folders[1], monkeypatch, stops)
    assert_equal(whole, stopped, trials, folders)
    return stopped
