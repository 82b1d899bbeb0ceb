"""Trials in two processes that share one student, as ``accelerate launch`` starts them."""

import json
import os
import subprocess
import sys

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.checkpoints import FOLDER
from kd_env.benchmark.shared_student import is_first, joined, num_processes
from kd_env.cli import invoke
from kd_env.cli.command_line import main

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "kd_env"]
RUN = "run --task digits --student tiny-vit(width=16,layers=1,dropout=0) --updates 60 --set validation_every=20"


@pytest.fixture
def launched(monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)


def test_one_process_writes_where_it_is_told(tmp_path):
    assert (num_processes(), is_first()) == (1, True)
    with joined(tmp_path) as folder:
        assert folder == tmp_path


@pytest.mark.usefixtures("launched")
def test_what_cannot_share_a_student_is_refused(tmp_path, monkeypatch, capsys):
    assert (num_processes(), is_first()) == (2, False)
    for words, message in (
        (["run", *RUN.split()[1:], "--policy", "uniform", "--executor", "ray"], "--executor ray: 2 processes share one student here"),
        (["bench", "demo", "--tune", "2", "--seeds", "0"], "--tune: 2 processes share one student here"),
    ):
        assert invoke([*words, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["kd-env", "teach", "--task", "digits"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "only bench, demo, run can do that" in capsys.readouterr().err


def launch(*words, **variables):
    done = subprocess.run([*LAUNCH, *words], capture_output=True, text=True, timeout=500, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return done


def assert_close(value, expected, place):
    if isinstance(expected, dict):
        assert value.keys() == expected.keys(), place
        for name in expected:
            assert_close(value[name], expected[name], f"{place}.{name}")
    elif isinstance(expected, list):
        assert len(value) == len(expected), place
        for number, (actual, wanted) in enumerate(zip(value, expected, strict=True)):
            assert_close(actual, wanted, f"{place}[{number}]")
    elif isinstance(expected, float):
        assert value == pytest.approx(expected, abs=1e-4), place
    else:
        assert value == expected, place


DIFFERENT = {"wall_s", "peak_rss_mb", "versions", "processes", "config"}


def compared(folder):
    return {record["trial"]: {name: value for name, value in record.items() if name not in DIFFERENT} for record in records.read(folder)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_records_of_two_processes_are_those_of_one(tmp_path):
    policies = ["--policy", "uniform", "--policy", "gradient_credit", "--policy", "reinforce(window=4)", "--policy", "mmkd"]
    first = launch(*RUN.split(), *policies, "--seeds", "0", "--out", str(tmp_path / "two"))
    assert first.stdout.count("report") == 1, "one process prints"
    assert invoke([*RUN.split(), *policies, "--seeds", "0", "--out", str(tmp_path / "one"), "--executor", "local", "--quiet"]) == 0
    two, alone = compared(tmp_path / "two"), compared(tmp_path / "one")
    assert len(two) == 4
    assert_close(two, alone, "record")
    assert {record["processes"] for record in records.read(tmp_path / "two")} == {2}
    assert not list(tmp_path.glob(f"two/{FOLDER}/*"))
    again = launch(*RUN.split(), *policies, "--seeds", "0-1", "--out", str(tmp_path / "two"))
    assert "4 trials to run, 4 finished already" in again.stderr
    assert len(json.loads("[" + ",".join((tmp_path / "two" / "results.jsonl").read_text().splitlines()) + "]")) == 8
