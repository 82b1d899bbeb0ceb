"""Every table in docs/ is what `kd-env report` makes from the committed records."""

import functools
import json
import re
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from kd_env.benchmark.records import read
from kd_env.benchmark.report import make_report, markdown
from kd_env.policies.registry import POLICIES

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from speed.measure import Row
from speed.scaling import markdown as growth_table
from speed.table import markdown as speed_table

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "records"
PAGES = {path.name: path.read_text() for folder in ("docs", "docs/systems", "docs/how-to") for path in sorted((ROOT / folder).glob("*.md"))}
MARKERS = [
    (page, source) for page, text in PAGES.items() for source in re.findall(r"<!-- kd-env report (docs/records/[a-z0-9-]+) -->", text)
]


def tables(text: str, source: str) -> list[str]:
    """The table lines that follow each marker naming ``source``."""
    lines = []
    for part in text.split(f"<!-- kd-env report {source} -->\n")[1:]:
        table = re.match(r"\s*((?:\|.*\n)+)", part)
        assert table, f"no table follows a marker of {source}"
        lines += table[1].splitlines()
    return lines


def test_all_records_are_reported():
    assert {path.name for path in RECORDS.iterdir()} == {Path(source).name for _, source in MARKERS}


def test_committed_records_are_compressed_and_small():
    assert all((folder / "results.jsonl.gz").is_file() for folder in RECORDS.iterdir())
    assert sum(path.stat().st_size for path in RECORDS.glob("*/results.jsonl.gz")) < 4_000_000


@functools.cache
def report_lines(source):
    return set(markdown(make_report(ROOT / source, read(ROOT / source))).splitlines())


@pytest.mark.parametrize(("page", "source"), dict.fromkeys(MARKERS))
def test_tables_come_from_the_records(page, source):
    report = report_lines(source)
    wrong = [line for line in tables(PAGES[page], source) if line not in report]
    assert not wrong, f"{page}: run kd-env report {source} and copy its table: {wrong[0]}"


@pytest.mark.parametrize("name", ["leaderboard", "published"])
def test_pages_that_are_made_from_the_records_are_up_to_date(name):
    page = runpy.run_path(str(ROOT / "docs" / f"{name}.py"))["page"]()
    assert PAGES[f"{name}.md"] == page, f"run python docs/{name}.py"


@pytest.mark.long
def test_rows_of_the_leaderboard_name_records():
    page = PAGES["leaderboard.md"]
    trials = {record["trial"] for folder in RECORDS.iterdir() for record in read(folder)}
    rows = re.findall(r"\| ([\w-]+) \| `([^`]+)` \|$", page, re.MULTILINE)
    assert len(rows) > 400
    assert {trial for _, trial in rows} <= trials


def test_the_table_of_credit_comes_from_its_measurements():
    credit = pd.read_csv(ROOT / "docs" / "figures" / "credit_direction.csv")
    late = credit[credit["update"] > 1000].groupby(["taught_by", "smoothing", "choice", "seed"])["credit"].mean()
    by_seed = late.groupby(["taught_by", "smoothing", "choice"]).agg(["mean", "min", "max"])
    text = PAGES["credit.md"].replace("\N{MINUS SIGN}", "-")
    rows = re.findall(r"^\| (uniform|router) \| (\S+) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 8
    for taught_by, smoothing, *cells in rows:
        for choice, cell in zip(("best", "most_confident"), cells, strict=True):
            written = [float(number) for number in re.findall(r"-?\d\.\d\d", cell)]
            assert written == pytest.approx(list(by_seed.loc[taught_by, float(smoothing), choice]), abs=0.00501)


def test_the_table_of_folds_comes_from_its_measurements():
    measured = pd.read_csv(ROOT / "docs" / "figures" / "credit_of_folds.csv").groupby(["pool", "labels"])
    text = PAGES["credit.md"].replace("\N{MINUS SIGN}", "-")
    rows = re.findall(r"^\| `(digits/\w+)` \| (\d+) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == len(measured) == 4
    for pool, labels, *cells in rows:
        for name, cell in zip(("start", "free_seen", "free_unseen"), cells, strict=True):
            values = measured.get_group((pool, int(labels)))[name]
            written = [float(number) for number in re.findall(r"-?\d\.\d\d", cell)]
            assert written == pytest.approx([values.mean(), values.min(), values.max()], abs=0.00501)


def test_the_table_of_accuracy_comes_from_its_measurements():
    measured = pd.read_csv(ROOT / "docs" / "figures" / "credit_accuracy.csv").groupby(["kind", "refresh", "task"])["agreement"]
    mean, lowest = measured.mean(), measured.min()
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| (\d+) \| (\S+) \((\S+)\) \| (\S+) \((\S+)\) \|$", PAGES["credit.md"], re.MULTILINE)
    assert len(rows) == len(mean) / 2
    for kind, refresh, _, *numbers in rows:
        expected = [of.loc[kind, int(refresh), task] for task in ("digits", "domains") for of in (mean, lowest)]
        assert [float(number) for number in numbers] == pytest.approx(expected, abs=0.00501)


@pytest.mark.parametrize("name", ["against_rules", "parts"])
def test_the_tables_of_the_page_on_choosing_come_from_the_records(name):
    from_records = runpy.run_path(str(ROOT / "docs" / "figures" / f"{name}.py"))["compare"]().round(2)
    committed = pd.read_csv(ROOT / "docs" / "figures" / f"{name}.csv")
    pd.testing.assert_frame_equal(from_records, committed, obj=f"python docs/figures/{name}.py")
    part = PAGES["choose.md"].split(f"<!-- docs/figures/{name}.csv -->\n")[1]
    head, _, *lines = (line.strip("| ").split(" | ") for line in re.match(r"\s*((?:\|.*\n)+)", part)[1].splitlines())
    first = from_records.columns[0]
    values = {(row[first], row["pool"]): tuple(row[["mean", "low", "high"]]) for _, row in from_records.iterrows()}
    written = {}
    for pool_or_form, *cells in lines:
        for title, cell in zip(head[1:], cells, strict=True):
            key = (title, pool_or_form) if name == "against_rules" else (pool_or_form.strip("`"), title)
            if numbers := re.findall(r"-?\d+\.\d", cell.replace("\N{MINUS SIGN}", "-")):
                written[key] = tuple(map(float, numbers[:3]))
    assert written.keys() == values.keys()
    assert all(written[key] == pytest.approx(values[key], abs=0.0501) for key in values)


def test_the_table_of_growth_is_that_of_its_measurements():
    measured = pd.read_csv(ROOT / "docs" / "figures" / "scaling.csv")
    assert f"<!-- docs/figures/scaling.csv -->\n{growth_table(measured)}\n" in PAGES["speed.md"]


@pytest.mark.parametrize(("measurements", "page"), [("speed.json", "speed.md"), ("speed_h100.json", "gpu.md")])
def test_the_table_of_speed_is_that_of_its_measurements(measurements, page):
    measured = json.loads((ROOT / "docs" / "figures" / measurements).read_text())
    assert speed_table([Row(**row) for row in measured["rows"]]) in PAGES[page]


def test_the_table_of_races_comes_from_their_measurements():
    measured = pd.read_csv(ROOT / "docs" / "figures" / "races.csv")
    text = (ROOT / "docs" / "how-to" / "distill.md").read_text()
    rows = re.findall(r"^\| ([\w -]+) \(`(\w+)`\) \| (.*) \|$", text, re.MULTILINE)
    assert {data for _, data, _ in rows} == set(measured["data"])
    for _, data, cells in rows:
        values = {name: table.set_index("candidate") for name, table in measured[measured["data"] == data].groupby("measurement")}
        teachers, race, ends, alone = (values[name] for name in ("teacher", "race", "end", "alone"))
        (kept,), best = race.index, ends["test"].idxmax()
        score, low, high = (f"{value:.3f}".lstrip("0") for value in race[["test", "low", "high"]].iloc[0])
        written = [cell.strip() for cell in cells.split(" | ")]
        assert written == [
            ends["layers"].iloc[0],
            ", ".join(f"{value:.3f}".lstrip("0") for value in teachers["test"]),
            f"`{kept.split(',')[0]}` {score} [{low}, {high}]",
            f"{ends.loc['no_teacher', 'test']:.3f}".lstrip("0"),
            f"`{best.split(',')[0]}` {ends['test'].max():.3f} ({len(ends)} of 7)".replace(" 0.", " ."),
            f"{race['seconds'].iloc[0] / alone['seconds'].iloc[0]:.1f}",
        ], f"{data}: docs/figures/races.py measured other values"


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_has_a_page(name):
    pages = [path.read_text() for path in (ROOT / "docs" / "systems").glob("*.md")]
    assert any(f"`{name}`" in text or f"`{name}(" in text or f"`{name}:" in text for text in pages), f"docs/systems: no page names {name}"


def test_every_page_is_linked_and_every_link_is_there():
    text = PAGES["methods.md"]
    linked = set(re.findall(r"\]\(systems/([a-z_]+\.md)\)", text))
    assert linked == {path.name for path in (ROOT / "docs" / "systems").glob("*.md")}
