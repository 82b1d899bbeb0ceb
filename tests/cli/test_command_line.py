"""The command line: exit status 0 when done, 2 with one line on bad input, 130 on Ctrl-C; and its help."""

import importlib.metadata
import os
import shlex
import signal
import time

import pytest
import typer
from commands import error_line, run, start_command

from kd_env import tasks
from kd_env.benchmark import records
from kd_env.benchmark.suites import SUITES
from kd_env.cli import app, invoke
from kd_env.cli.options import join_teachers
from kd_env.policies import registry
from kd_env.teachers import load_pool
from kd_env.teachers.names import split_names

COMMANDS = ("list", "demo", "bench", "teach", "bank", "run", "distill", "report", "replay", "export-minari", "doctor")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command, capsys):
    assert invoke([*command.split(), "--help"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"Usage: kd-env {command}".rstrip() + " ")
    assert output.err == ""
    assert max(map(len, output.out.splitlines())) <= 80


def test_without_arguments_it_shows_the_help(capsys):
    assert invoke([]) == 0
    help_ = capsys.readouterr().out
    for command in COMMANDS:
        (line,) = (line for line in help_.splitlines() if line.startswith(f"  {command} "))
        assert line.endswith("."), "the sentence is not cut off"


def test_version(capsys):
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out == f"kd-env {importlib.metadata.version('kd-env')}\n"


# examples in the help


def examples(command):
    """The examples in the help of a command, as argument lists without ``kd-env``."""
    lines = command.epilog.removeprefix("\b\nExamples:\n").replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines]


GROUP = typer.main.get_command(app)
EXAMPLES = [arguments for command in (*(GROUP.commands[name] for name in COMMANDS), GROUP) for arguments in examples(command)]


def test_every_command_has_examples_of_itself():
    assert set(GROUP.commands) == set(COMMANDS)
    for name in COMMANDS:
        assert examples(GROUP.commands[name])
        assert all(arguments[0] == name for arguments in examples(GROUP.commands[name]))


@pytest.mark.parametrize("arguments", EXAMPLES, ids=" ".join)
def test_an_example_names_options_tasks_teachers_and_policies_that_exist(arguments):
    name, *rest = arguments
    if "--help" in rest:
        return
    values = GROUP.commands[name].make_context(name, list(rest)).params
    if values.get("task"):
        task = tasks.load(values["task"])
        policies = values.get("policy") or []
        for policy in [policies] if isinstance(policies, str) else policies:
            registry.find(policy)
        for groups in values.get("groups") or []:
            assert set(split_names(groups, task.group_names)) <= set(task.group_names)
        if values.get("teachers"):
            assert load_pool(join_teachers(values["teachers"]), task).teachers
    if name == "bench":
        assert values["suite"] in SUITES


QUICK = [["list", "policies"], ["list", "tasks", "--json"], ["bank", "--task", "digits"]]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_a_quick_example_works_as_typed(arguments, tmp_path, monkeypatch, capsys):
    assert arguments in EXAMPLES
    monkeypatch.chdir(tmp_path)
    assert invoke(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_examples_work_as_typed_one_after_the_other(tmp_path):
    """All but the suite of all systems, which takes hours."""
    environment = {**os.environ, "MINARI_DATASETS_PATH": str(tmp_path / "datasets")}
    for arguments in EXAMPLES:
        if arguments[:2] == ["bench", "systems"]:
            continue
        process = start_command(*arguments, cwd=tmp_path, env=environment)
        output, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, f"{arguments}: {output}{errors}"


# bad input


BAD = {
    "unknown command": (["bogus"], "No such command 'bogus'"),
    "unknown flag": (run("--sedes", "1"), "No such option: --sedes"),
    "too many words": (["list", "tasks", "pools"], "unexpected extra argument"),
    "no task": (["run", "--policy", "uniform", "--out", "OUT"], "Missing option '--task'"),
    "no policy": (["run", "--task", "digits", "--out", "OUT"], "Missing option '--policy'"),
    "no out": (["run", "--task", "digits", "--policy", "uniform"], "Missing option '--out'"),
    "bank without task": (["bank", "--out", "OUT"], "Missing option '--task'"),
    "a flag without its value": (["bank", "--task"], "'--task' requires an argument"),
    "a report of nothing": (["report", "OUT"], "no records; name a folder that `kd-env run`"),
    "unknown suite": (["bench", "demos", "--out", "OUT"], "unknown suite 'demos'; did you mean 'demo'?"),
}


@pytest.mark.parametrize("defect", BAD)
def test_bad_arguments_are_one_line_and_leave_nothing(defect, out, capsys):
    arguments, message = BAD[defect]
    assert message in error_line(capsys, invoke([str(out) if word == "OUT" else word for word in arguments]))
    assert list(out.parent.iterdir()) == []


def test_the_command_itself_exits_with_2_and_no_traceback(out):
    process = start_command("run", "--task", "digits", "--polcy", "uniform", "--out", out)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert errors.count("\n") == 1
    assert "--polcy" in errors


@pytest.mark.parametrize("command", ["run", "bank"])
def test_a_file_where_a_folder_should_be(command, out, capsys):
    out.write_text("precious")
    arguments = run("--out", out) if command == "run" else ["bank", "--task", "digits", "--out", str(out), "--quiet"]
    assert str(out) in error_line(capsys, invoke(arguments))
    assert out.read_text() == "precious"
    assert list(out.parent.iterdir()) == [out]
    inside = run("--out", out / "deeper")
    assert f"{out} is not a folder" in error_line(capsys, invoke(inside))


# Ctrl-C


def do_not_ignore_ctrl_c():
    """A shell that runs the tests in the background makes its children ignore the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_keeps_finished_trials(workers, out):
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
    process = start_command(*arguments, start_new_session=True, preexec_fn=do_not_ignore_ctrl_c)
    file = out / "results.jsonl"
    while not (file.exists() and b"\n" in file.read_bytes()) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    before = file.read_bytes().count(b"\n")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "stopped; what is finished is kept, and the same command continues"
    assert "Traceback" not in errors
    kept = records.read(out)
    assert before <= len(kept) <= before + int(workers), "at most the running trials are finished, and none is begun"
    assert all((out / "traces" / f"{record['trial']}.parquet").exists() for record in kept)
    assert not list((out / "traces").glob(".*"))


class Interrupted:
    """A rule that is interrupted while it decides, ``mine:Dropped`` and ``mine:Converted``."""

    def __init__(self, context, seed=0):
        pass

    def decide(self, batch):
        self.interrupt()
        return batch.teacher_logits.new_full(batch.teacher_logits.shape[:2], 0.25)


class Dropped(Interrupted):
    """Python drops the error of a destructor."""

    def interrupt(self):
        class Sender:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)

        Sender()


class Converted(Interrupted):
    """A library turns the error into one of its own."""

    def interrupt(self):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("lost") from error


@pytest.mark.parametrize("policy", [Dropped, Converted])
def test_ctrl_c_is_not_lost(policy, out, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert invoke(run("--out", out, "--seeds", "0-9", policy=f"{__name__}:{policy.__name__}")) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "stopped; what is finished is kept, and the same command continues\n"
    assert not (out / "results.jsonl").exists(), "it stopped before the first trial ended"
