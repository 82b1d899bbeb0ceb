"""Variables are called what they hold."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("kd_env", "agents", "baselines", "speed", "tests", "docs")
EMPTY_NAMES = {"said", "found", "made", "given", "one"}


def names_in(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_variable_has_a_name_that_says_nothing(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    assert not {path.name: names for path in files if (names := EMPTY_NAMES.intersection(names_in(path.read_text())))}


def test_all_kinds_of_variables_are_read():
    assert set(names_in("made = 1\nfor found in (): pass\nlambda one: one\ndef f(*given): [said for said in given]")) == EMPTY_NAMES
