"""``kd-env list``: a table for people, JSON for programs."""

import json
import re

import pytest
from commands import error_line

from kd_env.benchmark.catalogue import CATALOGUE
from kd_env.cli import invoke


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


def test_each_task_is_described_by_its_own_words():
    about = {row["name"]: row["about"] for row in CATALOGUE["tasks"]()}
    assert len(set(about.values())) == len(about)
    assert about["glue/rte"] == "Whether one sentence follows from another (RTE 1, 2, 3 and 5)."


def test_settings_are_described_in_whole_sentences_and_knowledge_with_all_its_options():
    settings = CATALOGUE["settings"]()
    assert [row["name"] for row in settings if not row["about"].endswith(".")] == []
    assert all(row["options"].startswith("strength,skip_epochs") for row in CATALOGUE["knowledge"]() if row["name"] != "label")


def test_list_alone_names_the_lists_and_a_terminal_sees_a_table(capsys, monkeypatch):
    assert invoke(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["list", *CATALOGUE]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    for what in CATALOGUE:
        assert invoke(["list", what]) == 0
        shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert max(map(len, shown.splitlines())) <= 100


def test_an_unknown_list_is_refused(capsys):
    assert "unknown list 'polices'; did you mean 'policies'?" in error_line(capsys, invoke(["list", "polices"]))
