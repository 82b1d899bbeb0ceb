"""Every table in docs/results.md is what `kd-env report` makes from the committed records."""

import re
import shutil
from pathlib import Path

import pytest

from kd_env.benchmark.report import write_report

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "results.md").read_text()
SOURCES = re.findall(r"<!-- kd-env report (docs/records/[a-z-]+) -->", TEXT)


def tables(text: str, source: str) -> list[str]:
    """The table lines that follow each marker naming ``source``."""
    lines = []
    for part in text.split(f"<!-- kd-env report {source} -->\n")[1:]:
        table = re.match(r"\s*((?:\|.*\n)+)", part)
        assert table, f"no table follows a marker of {source}"
        lines += table[1].splitlines()
    return lines


def test_all_records_are_reported():
    assert {path.name for path in (ROOT / "docs" / "records").iterdir()} == {Path(source).name for source in SOURCES}


@pytest.mark.parametrize("source", dict.fromkeys(SOURCES))
def test_tables_come_from_the_records(source, tmp_path):
    shutil.copy(ROOT / source / "results.jsonl", tmp_path)
    made = write_report(tmp_path).with_suffix(".md").read_text().splitlines()
    wrong = [line for line in tables(TEXT, source) if line not in made]
    assert not wrong, f"run kd-env report {source} and copy its table: {wrong[0]}"
