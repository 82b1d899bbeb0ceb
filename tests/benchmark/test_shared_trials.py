"""Processes share the trials of a results folder: each trial runs once, and a dead process holds none."""

import subprocess
import sys
import time

import pytest
from trial_records import by_trial

from kd_env.benchmark import shared_trials
from kd_env.benchmark.checkpoints import FOLDER, CheckpointSettings
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.records import FinishedTrials
from kd_env.benchmark.run import run
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.shared_trials import UnitResult, run_all, run_unit
from kd_env.benchmark.trial import Trial
from kd_env.paths import claim

SETTINGS = {"updates": 4, "student": "mlp(width=8)", "batch_size": 8}


def trials(*seeds):
    return [Trial("digits", "uniform", seed, settings=SETTINGS, test=False) for seed in seeds]


def nobody(_trial):
    return None


def lock_of(folder, trial):
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    return folder / FOLDER / f"{trial.id}.lock"


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path):
    first, second = trials(0, 1)
    with claim(lock_of(tmp_path, second)):
        outcome = run_unit([first, second], CheckpointSettings(tmp_path), FinishedTrials(tmp_path), nobody)
    assert outcome.holder.startswith("process ")
    assert list(outcome.new) == []
    assert not (tmp_path / "results.jsonl").exists()
    assert list((tmp_path / FOLDER).iterdir()) == [], "the locks are free, and gone"


def test_a_trial_that_another_process_has_finished_is_not_run(tmp_path):
    first, second = trials(0, 1)
    finished = FinishedTrials(tmp_path)
    assert finished.update() == set()
    run_unit([first], CheckpointSettings(tmp_path), FinishedTrials(tmp_path), nobody)
    outcome = run_unit([first, second], CheckpointSettings(tmp_path), finished, nobody)
    assert [record["trial"] for record in outcome.new] == [second.id]
    assert finished.update() == {first.id, second.id}


def test_units_of_others_are_tried_until_they_are_finished(monkeypatch):
    monkeypatch.setattr(shared_trials, "PAUSE", 0.0)
    units, rounds, lines = [trials(0), trials(1, 2)], [], []

    class Told(Progress):
        def say(self, line):
            lines.append(line)

    def some(waiting):
        rounds.append(waiting)
        for unit in waiting:
            yield UnitResult(unit, holder="process 7 of it" if len(rounds) < 3 and unit == units[1] else "")

    run_all(units, some, Told(quiet=True))
    assert rounds == [units, units[1:], units[1:]]
    assert lines[1] == "waiting for 2 trials that process 7 of it runs"
    assert len(lines) == 4, "the waiting is told once, and each trial"


@pytest.mark.slow
def test_two_runs_share_the_trials_and_one_that_is_killed_holds_none(tmp_path):
    words = [
        "run",
        "--task",
        "digits",
        "--policy",
        "reinforce",
        "--policy",
        "uniform",
        "--seeds",
        "0-3",
        "--updates",
        "150",
        "--no-test",
        "--workers",
        "1",
    ]
    script = "import sys; from kd_env.cli import invoke; sys.exit(invoke(sys.argv[1:]))"

    def start(out):
        arguments = [sys.executable, "-c", script, *words, "--out", str(out)]
        return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    start(tmp_path / "alone").communicate()
    together = [start(tmp_path / "shared") for _ in range(3)]
    while not (tmp_path / "shared" / FOLDER).is_dir():
        time.sleep(0.05)
    together[0].kill()
    errors = [process.communicate()[1] for process in together]
    assert [process.returncode for process in together] == [-9, 0, 0]
    assert len(by_trial(tmp_path / "alone")) == 8
    assert by_trial(tmp_path / "shared") == by_trial(tmp_path / "alone")
    assert len((tmp_path / "shared" / "results.jsonl").read_bytes().splitlines()) == 8, "no trial was run twice"
    assert any("finished by another process" in error for error in errors)
    assert not (tmp_path / "shared" / FOLDER).exists()


@pytest.mark.long
def test_nothing_is_left_of_a_run(tmp_path):
    run(trials(0, 1), tmp_path, Progress(quiet=True), checkpoint_minutes=0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.jsonl", "results.jsonl.lock", "traces"]
    assert len(run_trials(trials(0), tmp_path, nobody)) == 1
