"""A report that claims no more than its records support, and needs no other file."""

import base64
import json
import math
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hand_made import runs, setting

from kd_env.benchmark.records import append
from kd_env.benchmark.report import write_report
from kd_env.errors import InputError


def write_trace(path, groups=("even", "odd")):
    rows = [(u, b, u * 4 + b, b % 2, b % 2, 1.0, 0.1, 1.0) for u in range(30) for b in range(4)]
    names = ["update", "slot", "example_id", "group", "teacher", "weight", "reward", "student_ce"]
    table = pyarrow.table([np.array(column) for column in zip(*rows, strict=True)], names=names)
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"group_names": json.dumps(groups), "teacher_names": '["p", "q"]'}), path)


def report_of(directory, records):
    for each in records:
        append(directory, each)
    page = write_report(directory)
    return (directory / "report.md").read_text(), page.read_text()


def test_the_conclusions_name_policies_above_the_rival(tmp_path):
    markdown, _ = report_of(tmp_path, setting())
    assert "apart from privileged policies, is that of learner (reward gradient): 0.754, n = 5" in markdown
    assert "is significantly above 0 (Holm-adjusted p < 0.05) for learner (+0.054 [+0.047, +0.061]" in markdown
    assert "be called" not in markdown


def test_fewer_than_five_seeds_allow_no_claim(tmp_path):
    markdown, page = report_of(tmp_path, setting(seeds=4))
    for text in (markdown, page):
        assert "(n = 4), no policy can be called better than another" in text
        assert "significantly" not in text
        assert "n = 4: no claim" in text


def test_without_a_rival_nothing_is_concluded_about_learning(tmp_path):
    markdown, _ = report_of(tmp_path, runs("learner", "reward scalar", 0.9))
    assert "No rival with the same labels was run" in markdown


def test_diverged_trials_are_named(tmp_path):
    records = setting()
    records[0] |= {"test": math.nan, "diverged": True}
    markdown, _ = report_of(tmp_path, records)
    assert "1 of 30 trials diverged (uniform-0)" in markdown
    assert "| nothing | uniform | 4 (1 diverged) |" in markdown


def test_the_page_contains_its_figures_and_needs_no_other_file(tmp_path):
    write_trace(tmp_path / "traces" / "learner-1.parquet")
    write_trace(tmp_path / "traces" / "uniform-0.parquet")
    markdown, page = report_of(tmp_path, setting())
    assert set(re.findall(r'(?:src|href|srcset)\s*=\s*"?([^,"]*)', page)) == {"data:image/png;base64"}
    assert not re.search(r"://|<script|<link|@import|url\(", page)
    files = re.findall(r"\(figures/(.+?\.png)\)", markdown)
    assert files == ["01-domains-scores.png", "01-domains-curves.png", "01-domains-selection-learner-1.png"]
    inlined = [base64.b64decode(image) for image in re.findall(r"base64,([^\"]+)", page)]
    assert inlined == [(tmp_path / "figures" / file).read_bytes() for file in files]
    assert all(image.startswith(b"\x89PNG") for image in inlined)


def test_both_reports_have_the_command_and_escape_special_characters(tmp_path):
    markdown, page = report_of(tmp_path, runs("a<b>|c", "nothing", 0.5, seeds=1))
    for text in (markdown, page):
        assert text.count("kd-env bench small --out results/small") == 1
        assert "numpy" in text
        assert "3,200" in text
    assert "a<b>" not in page
    assert "a&lt;b&gt;|c" in page
    assert "| a<b>\\|c |" in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("| nothing")}) == 1


def test_writing_again_replaces_the_report_and_leaves_no_partial_files(tmp_path):
    first = report_of(tmp_path, setting(seeds=1))
    assert report_of(tmp_path, []) == first
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(InputError, match="no records"):
        write_report(tmp_path)
