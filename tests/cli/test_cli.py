"""The command line: 0 when done, 2 and one line on bad input, 130 on Ctrl-C with what is finished kept."""

import importlib.metadata
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kd_env.benchmark import records
from kd_env.benchmark.catalogue import CATALOGUE
from kd_env.cli import invoke
from kd_env.cli.options import read_seeds
from kd_env.tasks.digits import load as load_digits

ROOT = Path(__file__).parents[2]
COMMANDS = ("list", "demo", "teach", "bank", "run", "distill", "report", "replay", "doctor")


def kd_env(*arguments, **options):
    script = "import sys; from kd_env.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(*arguments, task="digits", policy="uniform"):
    """A command line that works, and what is added to it; the last of two equal flags wins."""
    return ["run", "--task", task, "--policy", policy, "--seeds", "0", "--updates", "5", "--workers", "1", "--quiet", *map(str, arguments)]


# what works


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command, capsys):
    assert invoke([*command.split(), "--help"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Usage: ")
    assert said.err == ""


def test_no_words_at_all_are_a_call_for_help(capsys):
    assert invoke([]) == 0
    help_ = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in help_


@pytest.mark.parametrize("what", CATALOGUE)
def test_list_is_a_table_and_is_json(what, capsys):
    assert invoke(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(list(row) == list(rows[0]) and all(str(value).strip() for value in row.values()) for row in rows)
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert invoke(["list", what]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 1 + len(rows)
    for line, words in zip(table, [rows[0].keys(), *(row.values() for row in rows)], strict=True):
        assert line.split() == " ".join(map(str, words)).split()


def test_list_alone_names_the_lists_and_a_terminal_sees_a_table(capsys, monkeypatch):
    assert invoke(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["list", *CATALOGUE]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    for what in CATALOGUE:
        assert invoke(["list", what]) == 0
        shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert max(map(len, shown.splitlines())) <= 100


def test_the_version(capsys):
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out == f"kd-env {importlib.metadata.version('kd-env')}\n"


def test_a_run_from_words_to_a_report(out, capsys):
    assert invoke([*run("--out", out), "--policy", "most_confident", "--set", "temperature=3", "--student", "mlp(width=8)"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}/report.html\n"
    assert said.err == "", "quiet is silent"
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


def test_in_a_pipe_progress_is_plain_lines_on_stderr(out):
    process = kd_env(*[word for word in run("--out", out) if word != "--quiet"])
    said, progress = process.communicate(timeout=120)
    assert process.returncode == 0
    assert said == f"{out}/report.html\n"
    assert "\x1b" not in progress
    assert "\r" not in progress
    assert re.search(r"^1 trial to run$", progress, re.M)
    assert re.search(r"^\[1/1\] digits uniform seed 0: validation 0\.\d{3}, \d+\.\d s$", progress, re.M)


def test_a_policy_given_twice_runs_once(out):
    assert invoke([*run("--out", out), "--policy", "uniform"]) == 0
    assert len(records.read(out)) == 1


@pytest.mark.parametrize(("text", "seeds"), [("0-2", [0, 1, 2]), ("7", [7]), ("0,3,7", [0, 3, 7]), ("1-2, 2-3", [1, 2, 3])])
def test_seeds(text, seeds):
    assert read_seeds(text) == seeds


def test_bank_says_where_it_is(out, capsys):
    assert invoke(["bank", "--task", "digits", "--teachers", "digits/experts/upright", "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(
        rf"bank {re.escape(str(out))}: upright; fingerprint [0-9a-f]{{16}}\n  upright: validation accuracy 0\.\d{{3}}\n", said
    )
    assert invoke(run("--out", out.parent / "results", "--bank", out, "--teachers", "digits/experts/upright")) == 0
    assert records.read(out.parent / "results")[0]["env"]["bank"] == str(out)


def test_doctor_finds_all_well(tmp_path):
    process = kd_env("doctor", "--task", "digits", cwd=tmp_path)  # apart: pytest puts tests/ and its folder "agents" on the path
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, ""), said
    assert f"torch {torch.__version__.partition('+')[0]}" in said
    assert "PROBLEM" not in said
    assert "task digits: image, 10 classes, train 3588, reward 1200, validation 800, test 1600" in said


def test_doctor_finds_another_package_in_the_way(tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    process = kd_env("doctor", env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"})
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"PROBLEM: package 'agents' resolves to {tmp_path}, expected {ROOT}" in said
    assert "PROBLEM: package 'baselines'" not in said


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


def test_modules_of_one_s_own_are_found_where_one_works(tmp_path):
    (tmp_path / "my_own.py").write_text(MODULE)
    process = kd_env(
        *run("--out", "results", "--teachers", "digits/experts", task="my_own:make", policy="my_own:Second"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "PYTHONSAFEPATH": "1"},  # as the installed command: no folder of its own on the path
    )
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, said, errors) == (0, "results/report.html\n", "")
    (record,) = records.read(tmp_path / "results")
    assert record["policy"] == "my_own:Second"
    assert record["selection_rate"] == [0.0, 1.0, 0.0, 0.0]


# bad input


def not_a_task():
    return 3


def failing():
    raise TypeError("a mistake\nof my own")


def needs_an_option(size):
    return load_digits()


def own_digits():
    return load_digits()


class NoAct:
    def __init__(self, env, seed):
        pass


class NeedsMore:
    def __init__(self, env, seed, size):
        pass


HERE = __name__
ONE = "digits/experts/upright"

BAD = {
    "unknown command": (["bogus"], "No such command 'bogus'"),
    "unknown flag": (run("--sedes", "1"), "No such option: --sedes"),
    "unknown list": (["list", "polices"], "unknown list 'polices'; did you mean 'policies'?"),
    "too many words": (["list", "tasks", "pools"], "unexpected extra argument"),
    "no task": (["run", "--policy", "uniform", "--out", "OUT"], "Missing option '--task'"),
    "no policy": (["run", "--task", "digits", "--out", "OUT"], "Missing option '--policy'"),
    "no out": (["run", "--task", "digits", "--policy", "uniform"], "Missing option '--out'"),
    "bank without task": (["bank", "--out", "OUT"], "Missing option '--task'"),
    "a flag without its value": (["bank", "--task"], "'--task' requires an argument"),
    "unknown task": (run(task="digit"), "unknown task 'digit'; did you mean 'digits'?"),
    "empty task": (run(task=""), "unknown task ''; known: "),
    "a task option it does not have": (run(task="digits(size=3)"), "task 'digits(size=3)': got an unexpected keyword argument 'size'"),
    "a task option out of range": (
        run(task="domains(difficulty=1.5)"),
        "task domains(difficulty=1.5): expected a number of at least 0, below 1",
    ),
    "a torn spec": (run(task="digits("), "'digits(': expected name(key=value,...)"),
    "a spec of values alone": (run(task="domains(3)"), "'3': expected key=value"),
    "a task module that is not there": (run(task="no_such:load"), "task 'no_such:load' cannot be imported"),
    "a task function that is not there": (run(task=f"{HERE}:nothing"), "has no attribute 'nothing'"),
    "a task that is no task": (run(task=f"{HERE}:not_a_task"), f"task '{HERE}:not_a_task': returned int, expected a kd_env.tasks.Task"),
    "a task that fails": (run(task=f"{HERE}:failing"), f"task '{HERE}:failing': TypeError: a mistake of my own ({__file__}, line "),
    "a task that wants more": (run(task=f"{HERE}:needs_an_option"), "missing a required argument: 'size'"),
    "a task that is a module": (run(task="os:path"), "task 'os:path': "),
    "a task that is a number": (run(task="math:pi"), "task 'math:pi': 3.14"),
    "unknown policy": (run(policy="unifrom"), "unknown policy 'unifrom'; did you mean 'uniform'?"),
    "empty policy": (run(policy=""), "unknown policy ''"),
    "a policy option it does not have": (run(policy="reinforce(windows=2)"), "unexpected keyword argument 'windows'; options: "),
    "a policy option given twice": (run(policy="reinforce(window=2,window=3)"), "window is given twice, as 2 and 3; give it once"),
    "a policy option out of range": (run(policy="reinforce(window=0)"), "reinforce(window=0): expected a whole number of at least 1"),
    "unknown algorithm": (run(policy="sb3:PPPO"), "unknown Stable-Baselines3 algorithm 'PPPO'; did you mean 'PPO'?"),
    "unknown hyperparameter": (run(policy="sb3:PPO(n_step=4)"), "sb3:PPO: no hyperparameter 'n_step'; known: "),
    "a single teacher there is not": (run(policy="single:4"), "single:4: expected 0..3 or one of upright, inverted"),
    "a single teacher of no number": (run(policy="single:²"), "single:²: expected 0..3"),
    "a policy that is not there": (run(policy=f"{HERE}:Nobody"), f"policy '{HERE}:Nobody' cannot be imported"),
    "a policy that cannot act": (run(policy=f"{HERE}:NoAct"), "a NoAct has no act(observation)"),
    "a policy that wants more": (run(policy=f"{HERE}:NeedsMore"), "missing a required argument: 'size'"),
    "a policy that is a module": (run(policy="os:path"), "policy 'os:path': "),
    "a policy that needs labels": (run(policy="no_teacher"), "kd_weight=1"),
    "a needed action denied": (run("--set", "action=subset"), "action=subset: policy 'uniform' needs action=weights; leave action out"),
    "credit and reward that do not go together": (
        run("--set", "reward=student_loss", policy="gradient_credit"),
        "credit='first_order' divides dev_improvement; reward='student_loss' goes with credit=shared",
    ),
    "one teacher for camkd": (run("--teachers", ONE, policy="camkd"), "needs at least 2 teachers, pool 'digits/experts[upright]' has 1"),
    "one teacher for the router": (run("--teachers", ONE, policy="router"), "needs at least 2 teachers"),
    "an oracle that nobody knows": (run("--teachers", "digits/capacity", policy="oracle"), "leave the oracle out"),
    "a second policy that cannot work": ([*run("--teachers", "digits/capacity"), "--policy", "oracle"], "leave the oracle out"),
    "unknown pool": (run("--teachers", "digits/expert"), "unknown pool 'digits/expert'; did you mean 'digits/experts'?"),
    "empty pool": (run("--teachers", ""), "unknown pool ''"),
    "a pool of another task": (run("--teachers", "domains/experts"), "pool 'domains/experts' was made for another task than 'digits'"),
    "unknown teacher": (run("--teachers", "digits/experts/uprigt"), "unknown teacher of digits/experts 'uprigt'; did you mean 'upright'?"),
    "a teacher given twice": (run("--teachers", f"{ONE},{ONE}"), "teacher names must be unique, got upright, upright"),
    "unknown student": (run("--student", "mpl"), "unknown network 'mpl'; did you mean 'mlp'? (there is no folder"),
    "a student of another kind": (run("--student", "tiny-bert"), "student 'tiny-bert' reads text, task 'digits' is image; use mlp"),
    "a student option it does not have": (run("--student", "mlp(widht=3)"), "unexpected keyword argument 'widht'; options: "),
    "a student option of the wrong type": (run("--student", "mlp(width=wide)"), "student mlp(width='wide'): expected a number"),
    "a student that cannot be": (run("--student", "mlp(width=2.5)"), "student 'mlp(width=2.5)' cannot be built"),
    "a student of no width": (run("--student", "mlp(width=0)"), "student mlp(width=0): expected a number of at least 1"),
    "a student with too large patches": (run("--student", "tiny-vit(patch=9)"), "patch=9 must divide the side 8"),
    "a student with too many heads": (run("--student", "tiny-vit(heads=3)"), "heads=3 the width 32"),
    "no updates": (run("--updates", "0"), "updates=0: must be at least 1"),
    "updates of the wrong type": (run("--updates", "many"), "Invalid value for '--updates'"),
    "updates twice": (run("--set", "updates=7"), "--updates 5 and --set updates=7: give one of them"),
    "unknown setting": (run("--set", "temprature=3"), "unknown setting 'temprature'; did you mean 'temperature'?"),
    "a setting that is not one": (run("--set", "task=domains"), "unknown setting 'task'"),
    "a setting without a value": (run("--set", "kd_weight"), "'kd_weight': expected key=value"),
    "a setting of the wrong type": (run("--set", "temperature=warm"), "temperature='warm': expected float, got str"),
    "a setting out of range": (run("--set", "kd_weight=1.5"), "kd_weight=1.5: must be in [0, 1]"),
    "a setting given twice": (run("--set", "kd_weight=1", "--set", "kd_weight=0.5"), "kd_weight is given twice, as 1 and 0.5"),
    "a choice there is not": (run("--set", "observation=half"), "observation='half': expected summary or full"),
    "unknown optimizer": (run("--set", "optimizer=adamm"), "unknown optimizer 'adamm'; did you mean 'adam"),
    "more reward labels than there are": (run("--set", "reward_labels=5000"), "reward_labels=5000: the reward split has 1200 examples"),
    "a batch larger than the split": (run("--set", "batch_size=4000"), "batch_size=4000 is more than the 3588 training examples"),
    "unknown device": (run("--set", "device=gpu"), "device='gpu'"),
    "seeds of the wrong type": (run("--seeds", "zero"), "--seeds 'zero': 'zero' names no seeds; expected numbers as 0-4 or 0,3,7"),
    "negative seeds": (run("--seeds", "-1"), "--seeds '-1'"),
    "seeds backwards": (run("--seeds", "4-0"), "--seeds '4-0': '4-0' names no seeds"),
    "no seeds": (run("--seeds", ""), "--seeds ''"),
    "a seed too large": (run("--seeds", "99999999999999999999"), "--seeds '99999999999999999999'"),
    "too many seeds": (run("--seeds", "0-999999999"), "up to 10000"),
    "negative workers": (run("--workers", "-1"), "Invalid value for '--workers'"),
    "a report of nothing": (["report", "OUT"], "no records; name a folder that `kd-env run`"),
    "a replay of nothing": (["replay", "OUT", "x"], "no records"),
    "a replay without a trial": (["replay", "OUT"], "Missing argument 'trial'"),
    "a doctor for an unknown task": (["doctor", "--task", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
    "a bank of an unknown pool": (["bank", "--task", "digits", "--teachers", "x", "--out", "OUT", "--quiet"], "unknown pool 'x'"),
}


def one_line(capsys, status):
    said = capsys.readouterr()
    assert status == 2, said.err
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("kd-env: ")
    return said.err


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(what, out, capsys):
    arguments, said = BAD[what]
    arguments = [str(out) if word == "OUT" else word for word in arguments]
    if arguments[0] == "run" and "--out" not in arguments and what != "no out":
        arguments += ["--out", str(out)]
    assert said in one_line(capsys, invoke(arguments))
    assert list(out.parent.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(out, capsys):
    line = one_line(capsys, invoke(run("--set", "device=cuda", "--out", out)))
    assert "device='cuda' is not available here; use device=auto or cpu" in line
    assert not out.exists()


@pytest.mark.parametrize("command", ["run", "bank"])
def test_a_file_where_a_folder_should_be(command, out, capsys):
    out.write_text("precious")
    arguments = run("--out", out) if command == "run" else ["bank", "--task", "digits", "--out", str(out), "--quiet"]
    assert str(out) in one_line(capsys, invoke(arguments))
    assert out.read_text() == "precious"
    assert list(out.parent.iterdir()) == [out]
    inside = run("--out", out / "deeper")
    assert f"{out} is not a folder" in one_line(capsys, invoke(inside))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "can be written to; name another place" in one_line(capsys, invoke(run("--out", tmp_path / "out")))


def test_a_bank_folder_with_something_else_in_it(out, capsys):
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    line = one_line(capsys, invoke(["bank", "--task", "digits", "--out", str(out), "--quiet"]))
    assert "holds something that is not a bank" in line
    assert (out / "thesis.txt").read_text() == "years of work"


def test_a_bank_of_other_teachers(out, capsys):
    assert invoke(["bank", "--task", "digits", "--teachers", ONE, "--out", str(out), "--quiet"]) == 0
    capsys.readouterr()
    line = one_line(capsys, invoke(run("--bank", out, "--out", out.parent / "results")))
    assert (
        "holds the teachers upright, not upright, inverted, mirrored, transposed; name the same with --teachers, or another folder" in line
    )
    assert not (out.parent / "results").exists()


@pytest.mark.parametrize("damage", ['{"trial": "x"}', "[1]", "not json at all", "\xff\xfe"])
def test_damaged_results_name_the_line_and_are_left_alone(damage, out, capsys):
    out.mkdir()
    file = out / "results.jsonl"
    file.write_text(damage + "\n")
    for arguments in (run("--out", out), ["report", str(out)], ["replay", str(out), "x"]):
        assert f"{file}, line 1" in one_line(capsys, invoke(arguments))
    assert file.read_text() == damage + "\n"
    assert not (out / "traces").exists()


def test_the_command_itself_exits_with_2_and_no_traceback(out):
    process = kd_env("run", "--task", "digits", "--polcy", "uniform", "--out", out)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    assert errors.count("\n") == 1
    assert "--polcy" in errors


# Ctrl-C


def hears_ctrl_c():
    """A shell that runs the tests in the background has its children ignore the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_keeps_what_is_finished(workers, out):
    arguments = [
        "run",
        "--task",
        "digits",
        "--policy",
        "uniform",
        "--seeds",
        "0-99",
        "--updates",
        "200",
        "--workers",
        workers,
        "--out",
        out,
    ]
    process = kd_env(*arguments, start_new_session=True, preexec_fn=hears_ctrl_c)
    file = out / "results.jsonl"
    while not (file.exists() and b"\n" in file.read_bytes()) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    before = file.read_bytes().count(b"\n")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped; what was finished is kept, the same command carries on"
    assert "Traceback" not in errors
    kept = records.read(out)
    assert before <= len(kept) <= before + int(workers), "at most what was under way is finished, nothing is begun"
    assert all((out / "traces" / f"{record['trial']}.parquet").exists() for record in kept)
    assert not list((out / "traces").glob(".*"))
