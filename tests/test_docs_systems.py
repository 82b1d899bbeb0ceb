"""The pages of the published systems, and the table of their commands."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from command_parts import part_of

from kd_env.benchmark.catalogue import CATALOGUE
from kd_env.benchmark.records import append, read
from kd_env.benchmark.suite_checks import check
from kd_env.cli import invoke
from kd_env.errors import InputError

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "systems").glob("*.md"))}
OURS = runpy.run_path(str(ROOT / "docs" / "ours.py"))
OF_THIS_PROJECT = {"crossfit_credit", "held_credit", "lookahead", "piloted", "population", "router_and_rivals", "scorer_credit"}
"""Pages of methods without a published result in distillation of their own."""


def section(page, title):
    """The text below a heading of the second level, up to the next one."""
    return (page + "\n## ").split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", sorted(PAGES.keys() - OF_THIS_PROJECT))
def test_a_page_has_the_published_result_and_ours(name):
    text = section(PAGES[name], "Published result and ours")
    assert "**Published.**" in text
    assert "**Ours**" in text
    sources = ("<!-- docs/ours.py ", "<!-- kd-env report ", "#results-of-this-project", "not measured yet")
    assert any(source in text for source in sources)


@pytest.mark.parametrize("name", sorted(OF_THIS_PROJECT))
def test_other_pages_say_why_no_result_is_quoted(name):
    assert len(section(PAGES[name], "Published results").split()) > 5


def test_differences_on_the_pages_are_those_of_the_records():
    marked = [name for name, page in PAGES.items() if "<!-- docs/ours.py " in page]
    assert len(marked) >= 20
    assert [name for name in marked if OURS["updated"](PAGES[name]) != PAGES[name]] == [], "run python docs/ours.py"


def test_the_maker_of_the_differences_writes_a_table_below_each_marker():
    page = "a\n\n<!-- docs/ours.py docs/records/systems aekd ebkd -->\n| old |\n\nb\n"
    lines = OURS["updated"](page).splitlines()
    assert lines[:3] == page.splitlines()[:3]
    assert [line.split(" | ")[0] for line in lines[5:7]] == ["| `aekd`", "| `ebkd`"]
    assert lines[3].count("|") == lines[5].count("|") == 6
    assert lines[7:] == ["", "b"]


def test_the_maker_of_the_differences_refuses_two_settings_of_a_pool(tmp_path):
    record, *_ = read(ROOT / "docs" / "records" / "systems")
    append(tmp_path, record)
    append(tmp_path, record | {"trial": "of-another-setting", "updates": record["updates"] + 1})
    with pytest.raises(InputError, match=rf"pool {record['pool']}: policy '.*' has two records with seed {record['seed']}; "):
        OURS["table"](str(tmp_path), [record["policy"]])


def commands():
    """The table of commands: system and words after ``kd-env``."""
    text = section((ROOT / "docs" / "methods.md").read_text(), "One command for each published system")
    return dict(re.findall(r"^\| (.+?) \| .+ \| `kd-env (.+)` \|$", text, re.M))


@pytest.mark.parametrize(("system", "command"), commands().items())
def test_what_a_command_of_the_table_names_exists(system, command, capsys):
    words = shlex.split(command)
    assert invoke([*words, "--help"]) == 0
    capsys.readouterr()
    check(system, part_of(words))


def test_every_published_policy_and_pool_has_a_command():
    table = commands()
    named = {policy.partition("(")[0] for command in table.values() for policy in part_of(shlex.split(command)).policies}
    published = {row["name"] for row in CATALOGUE["policies"]() if row["paper"] != "-"}
    assert len(published) > 30
    assert published <= named
    assert {"Peer-to-peer", "Faculty distillation", "Intermediate heads"} <= {re.sub(r"\[(.+?)\].*", r"\1", system) for system in table}


@pytest.mark.parametrize(
    "wrong", ["--policy camkdd", "--policy uniform --set knowledge=hintt", "--teachers digits/mixedd --policy uniform"]
)
def test_a_name_that_does_not_exist_is_noticed(wrong):
    with pytest.raises(InputError, match="did you mean"):
        check("here", part_of(["run", "--task", "digits", *shlex.split(wrong)]))


def test_every_policy_with_a_released_scale_is_in_the_table_of_what_it_leaves_out():
    text = (ROOT / "docs" / "how-to" / "vision.md").read_text().split("| policy with `scale=released` |")[1].split("\n\n")[0]
    scaled = {row["name"] for row in CATALOGUE["policies"]() if "scale" in row["options"].split(",")}
    assert "mt_bert" in scaled
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == scaled
