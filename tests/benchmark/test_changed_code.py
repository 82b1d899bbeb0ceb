"""A user is told that finished trials come from an earlier version of a policy's file."""

import os
import sys
import time

import pytest

from kd_env.benchmark.changed_code import changed_code
from kd_env.benchmark.trial import Trial

POLICY = """
class Third:
    access = "nothing"
    env_options = {"action": "one"}

    def __init__(self, context, seed=0):
        self.slots = context.num_envs

    def act(self, observation):
        return [2] * self.slots
"""


@pytest.fixture
def trials(tmp_path, monkeypatch):
    (tmp_path / "third_policy.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    yield [Trial("digits", policy, seed) for policy in ("third_policy:Third", "uniform") for seed in (0, 1)]
    sys.modules.pop("third_policy", None)


def trace(folder, trial, seconds):
    """Write a trace of another age than the policy's file."""
    (folder / "traces").mkdir(exist_ok=True)
    file = folder / "traces" / f"{trial.id}.parquet"
    file.touch()
    os.utime(file, (time.time() + seconds,) * 2)


def test_a_newer_file_is_named_with_the_number_of_its_trials(trials, tmp_path):
    for trial in trials:
        trace(tmp_path, trial, -60)
    (line,) = changed_code(trials, tmp_path)
    expected = "policy third_policy:Third: third_policy.py is newer than 2 of its finished trials, which are kept; "
    assert line == expected + "give another --out to run the new code"


def test_nothing_is_said_of_an_older_file_and_of_trials_without_a_trace(trials, tmp_path):
    trace(tmp_path, trials[0], 60)
    assert changed_code(trials, tmp_path) == []
