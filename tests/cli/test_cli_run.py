"""``kd-env run``: from a command line to records and a report."""

import inspect
import os
import re
from pathlib import Path

import pytest
from commands import run, start_command

from kd_env.benchmark import records
from kd_env.cli import invoke

ROOT = Path(__file__).parents[2]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.long
def test_a_run_writes_records_traces_and_a_report(out, capsys):
    assert invoke([*run("--out", out), "--policy", "most_confident", "--set", "temperature=3", "--student", "mlp(width=8)"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{out}/report.html\n"
    assert output.err == "", "quiet is silent"
    written = records.read(out)
    assert [record["policy"] for record in written] == ["uniform", "most_confident"]
    assert all(record["config"]["temperature"] == 3 and record["student"] == "mlp(width=8)" for record in written)
    assert {path.name for path in out.iterdir()} >= {"results.jsonl", "report.html", "report.md", "traces"}
    assert len(list((out / "traces").glob("*.parquet"))) == 2
    before = (out / "results.jsonl").read_bytes()
    assert invoke([*run("--out", out), "--policy", "most_confident", "--set", "temperature=3", "--student", "mlp(width=8)"]) == 0
    assert (out / "results.jsonl").read_bytes() == before
    capsys.readouterr()
    (out / "report.html").unlink()
    assert invoke(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}/report.html\n"
    assert (out / "report.html").exists()


@pytest.mark.long
def test_in_a_pipe_progress_is_plain_lines_on_stderr(out, capfd):
    assert not os.isatty(2)
    assert invoke([word for word in run("--out", out) if word != "--quiet"]) == 0
    output, progress = capfd.readouterr()
    assert output == f"{out}/report.html\n"
    assert "\x1b" not in progress
    assert "\r" not in progress
    assert re.search(r"^1 trial to run$", progress, re.M)
    assert re.search(r"^\[1/1\] digits uniform seed 0: validation 0\.\d{3}, \d+\.\d s$", progress, re.M)


@pytest.mark.long
def test_a_policy_given_twice_runs_once(out):
    assert invoke([*run("--out", out), "--policy", "uniform"]) == 0
    assert len(records.read(out)) == 1


MODULE = inspect.cleandoc("""
    import numpy as np
    from kd_env.tasks.digits import load

    def make(): return load()

    class Second:
        access = "nothing"
        env_options = {"action": "one"}
        def __init__(self, env, seed): pass
        def act(self, observation): return np.ones(len(observation["progress"]), dtype=int)
""")


@pytest.mark.long
def test_modules_in_the_working_directory_can_be_used(tmp_path):
    (tmp_path / "my_own.py").write_text(MODULE)
    process = start_command(
        *run("--out", "results", "--teachers", "digits/experts", task="my_own:make", policy="my_own:Second"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},  # as the installed command: without the working directory
    )
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (0, "results/report.html\n", "")
    (record,) = records.read(tmp_path / "results")
    assert record["policy"] == "my_own:Second"
    assert record["selection_rate"] == [0.0, 1.0, 0.0, 0.0]
