"""Many trials: the same records however they are run, stopped or resumed."""

import dataclasses
import signal
import time

import pytest
from processes import errors_of, start
from trial_records import by_trial

from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError

pytestmark = pytest.mark.long


def trials(seeds=(0, 1)):
    return [Trial("digits", policy, seed, settings={"updates": 20}) for seed in seeds for policy in ("uniform", "camkd", "oracle")]


def test_two_workers_give_the_records_of_one(tmp_path):
    run(trials(), tmp_path / "alone", Progress(quiet=True), workers=1)
    run(trials(), tmp_path / "two", Progress(quiet=True), workers=2)
    assert len(by_trial(tmp_path / "alone")) == 6
    assert by_trial(tmp_path / "alone") == by_trial(tmp_path / "two")
    for trial in trials():
        name = f"traces/{trial.id}.parquet"
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_finished_trials_are_not_run_again(tmp_path):
    run(trials(seeds=(0,)), tmp_path, Progress(quiet=True))
    before = (tmp_path / "results.jsonl").read_bytes()
    run(trials(seeds=(0,)), str(tmp_path), Progress(quiet=True))
    assert (tmp_path / "results.jsonl").read_bytes() == before
    run(trials(), tmp_path, Progress(quiet=True))
    after = (tmp_path / "results.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 6


def test_an_invalid_trial_stops_the_run_before_its_first_trial(tmp_path):
    for bad, message in (
        (Trial("digits", "oracle", 0, "digits/capacity", settings={"updates": 5}), "the best teachers of pool 'digits/capacity' are not"),
        (Trial("digits", "single:9", 0, settings={"updates": 5}), "single:9: expected 0..3 or one of upright"),
        (Trial("digits", "reinforce(windows=3)", 0, settings={"updates": 5}), "unexpected keyword argument 'windows'"),
    ):
        good = dataclasses.replace(bad, policy="uniform")
        with pytest.raises(InputError, match=message):
            run([good, bad], tmp_path / "out", Progress(quiet=True))
        assert not (tmp_path / "out").exists()


def test_a_killed_run_resumes_and_ends_with_the_same_records(tmp_path):
    command = "run --task digits --policy uniform --policy reinforce --seeds 0-3 --updates 40 --workers 1 --quiet"
    file = tmp_path / "killed" / "results.jsonl"
    process = start(command, None, tmp_path / "killed")
    while not (file.exists() and file.read_bytes().count(b"\n") >= 2) and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = file.read_bytes()
    finished = before[: before.rfind(b"\n") + 1]
    assert 2 <= finished.count(b"\n") < 8
    again = start(command, None, tmp_path / "killed")
    again.join()
    assert (again.exitcode, errors_of(tmp_path / "killed")) == (0, f"{tmp_path}/killed/report.html\n")
    assert file.read_bytes().startswith(finished), "finished trials are not run again"
    whole = [Trial("digits", policy, seed, settings={"updates": 40}) for seed in range(4) for policy in ("uniform", "reinforce")]
    run(whole, tmp_path / "whole", Progress(quiet=True))
    assert by_trial(tmp_path / "killed") == by_trial(tmp_path / "whole")
    assert len(list((tmp_path / "killed" / "traces").glob(".*"))) <= 1, "of the trial that was killed"
