"""The README's examples run, and its commands are commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kd_env.cli import invoke

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"(?P<before>(?:^<!--.*?-->\s*\n)?)^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```", re.M | re.S)


def blocks(*languages):
    """The README's code blocks in these languages, without those under ``<!-- not run -->``."""
    found = FENCE.finditer((ROOT / "README.md").read_text())
    return [one["code"] for one in found if one["language"] in languages and "not run" not in one["before"]]


def commands():
    """Every ``kd-env`` command of the shell blocks, continued lines joined."""
    text = "\n".join(blocks("sh", "bash", "console", "shell")).replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
    return [line for line in lines if line.startswith("kd-env ")]


def numbered(of):
    """RecordedDecision to parametrise over; one where there is no README, so that the test fails rather than vanishes."""
    return range(len(of()) if (ROOT / "README.md").exists() else 1)


def test_there_is_something_to_check():
    assert blocks("python")
    assert commands()


@pytest.mark.parametrize("number", numbered(lambda: blocks("python")))
def test_a_python_block_runs(number, tmp_path):
    code = blocks("python")[number]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # several are far slower on a busy machine
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stderr}"


@pytest.mark.parametrize("number", numbered(commands))
def test_a_command_parses(number, capsys):
    words = shlex.split(commands()[number], comments=True)[1:]
    status = invoke([*words, "--help"])
    assert (status, capsys.readouterr().err) == (0, ""), words
    known = subcommand_options(words[0], capsys)
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def subcommand_options(name, capsys):
    assert invoke([name, "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


def test_make_targets_named_in_it_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = "\n".join(blocks("sh", "bash", "console", "shell"))
    assert set(re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.M)) <= targets
