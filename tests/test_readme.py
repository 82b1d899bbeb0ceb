"""The code blocks of the README and of the guides run, and the commands of all pages are commands."""

import pkgutil
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from kd_env.cli import invoke

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
PAGES = [*GUIDES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "systems").glob("*.md"))]
FENCE = re.compile(r"(?P<before>(?:^<!--.*?-->\s*\n)?)^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```", re.M | re.S)
SHELL = ("sh", "bash", "console", "shell")
MAX_CHARACTERS = 160
BUILT = "docs/_build/"
"""What `make docs` writes; git ignores it."""


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page, *languages):
    """The page's code blocks in these languages, without those under ``<!-- not run -->``."""
    matches = FENCE.finditer(page.read_text())
    return [match["code"] for match in matches if match["language"] in languages and "not run" not in match["before"]]


def commands(page):
    """Every ``kd-env`` command of the page's shell blocks, continued lines joined."""
    text = "\n".join(blocks(page, *SHELL)).replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
    return [line for line in lines if line.startswith("kd-env ")]


PARTS = ROOT / "docs" / "how-to" / "own-parts.md"
PYTHON = [
    pytest.param(code, id=f"{name_of(page)}-{number}")
    for page in GUIDES
    if page != PARTS  # its blocks run together
    for number, code in enumerate(blocks(page, "python"))
]
COMMANDS = {command: None for page in PAGES for command in commands(page)}


def test_there_is_something_to_check():
    assert blocks(ROOT / "README.md", "python")
    assert commands(ROOT / "README.md")


@pytest.mark.long
@pytest.mark.parametrize("code", PYTHON)
def test_a_python_block_runs(code, tmp_path, monkeypatch):
    run(code, tmp_path, monkeypatch)


def run(code, folder, monkeypatch):
    """Run ``code`` as a script in a folder, whose modules it can import."""
    (folder / "block.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    try:
        runpy.run_path("block.py", run_name="__main__")
    finally:
        for name in set(sys.modules) - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


TOGETHER = """
import gymnasium as gym
import kd_env

parts = {"task": "stripes", "student": "Wide", "teachers": "pool", "reward": "Agreement", "observation": "Predictions", "action": "Share"}
parts = {name: f"parts:{value}" for name, value in parts.items()}
make = {"num_envs": 8, "batch_size": 8, "vectorization_mode": "vector_entry_point", "updates": 2}
env = gym.make_vec("kd_env/TeacherSelection-v0", **make, knowledge="response,parts:LogitDistance", **parts)
observation, _ = env.reset(seed=0)
assert observation["teachers"].shape == (8, 1)
for _ in range(2):
    *_, terminated, _, _ = env.step(env.action_space.sample())
assert terminated.all()
"""
"""All parts of the guide in one environment."""


def test_the_parts_of_the_guide_work_together(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text("\n".join(blocks(PARTS, "python")))
    run(TOGETHER, tmp_path, monkeypatch)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses(command, capsys):
    words = shlex.split(command, comments=True)[1:]
    status = invoke([*words, "--help"])
    assert (status, capsys.readouterr().err) == (0, ""), words
    known = subcommand_options(words[0], capsys)
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def subcommand_options(name, capsys):
    assert invoke([name, "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


def test_make_targets_named_in_the_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = "\n".join(code for page in PAGES for code in blocks(page, *SHELL))
    lines = re.findall(r"^(?:\$ )?make ([a-z -]+?)(?: *#.*)?$", text, re.M)
    assert lines
    assert {target for line in lines for target in line.split()} <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_of_text_is_a_wall(page):
    text = re.sub(FENCE, "", page.read_text())
    long = [line for line in text.splitlines() if len(line) > MAX_CHARACTERS and not line.startswith("|")]
    assert not long, f"{name_of(page)}: break this line: {long[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_are_there(page):
    text = re.sub(FENCE, "", page.read_text())
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists() and "generated/" not in link]
    assert not missing, f"{name_of(page)}: no such file: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_names_in_code_font_exist(page):
    text = re.sub(FENCE, "", page.read_text())
    files = re.findall(r"`((?:kd_env|agents|baselines|speed|tests|docs)/[\w./-]+)`", text)
    files = [file for file in files if not file.startswith(BUILT) and not re.fullmatch(r"kd_env/\w+-v\d+", file)]
    missing = [file for file in files if not (ROOT / file).exists()]
    assert not missing, f"{name_of(page)}: no such file: {missing}"
    for name in re.findall(r"`((?:kd_env|agents|baselines)\.[\w.]+)", text):
        pkgutil.resolve_name(name)


def test_start_here_names_every_package():
    text = (ROOT / "docs" / "start.md").read_text()
    packages = [path.parent.name for path in (ROOT / "kd_env").glob("*/__init__.py")]
    assert not [name for name in packages if f"`kd_env/{name}/`" not in text]
