"""A report that claims no more than its records support, and needs no other file."""

import math
import re

import pytest
from hand_made import runs, setting
from traces import write_trace

from kd_env.benchmark.records import append, read
from kd_env.benchmark.report import make_report, markdown, write_report
from kd_env.benchmark.report_sections import num_drawn
from kd_env.benchmark.report_text import conclusions
from kd_env.benchmark.summary import summarise
from kd_env.errors import InputError


def report_of(directory, records):
    for each in records:
        append(directory, each)
    page = write_report(directory)
    return (directory / "report.md").read_text(), page.read_text()


def test_the_conclusions_name_policies_above_the_rival(tmp_path):
    markdown, _ = report_of(tmp_path, setting())
    assert (
        "Among policies that are not privileged, learner (reward gradient) is best on validation: mean accuracy 0.754 on validation"
        in markdown
    )
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
    for seed in range(5):
        write_trace(tmp_path / "traces" / f"learner-{seed}.parquet")
    write_trace(tmp_path / "traces" / "uniform-0.parquet")
    markdown, page = report_of(tmp_path, setting())
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "ids are unique, over all figures too"
    links = re.findall(r'(?:src|href|srcset)\s*=\s*"?([^"]*)', page)
    assert {link[0] for link in links} == {"#"}
    assert {link[1:] for link in links} <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)
    assert not re.search(r"://|<link|@import|<img|url\((?!#)", page)
    files = re.findall(r"\(figures/(.+?\.png)\)", markdown)
    assert files == [f"01-domains-{name}.png" for name in ("scores", "curves", "pairs", "selection-learner")]
    assert all((tmp_path / "figures" / file).read_bytes().startswith(b"\x89PNG") for file in files)
    assert page.count('<svg class="plot"') == 4
    assert "learner, mean over 5 seeds." in page


def test_a_policy_that_never_teaches_has_a_line_and_no_map(tmp_path):
    write_trace(tmp_path / "traces" / "router-0.parquet", teaches=False)
    write_trace(tmp_path / "traces" / "learner-0.parquet")
    for text in report_of(tmp_path, setting()):
        assert "Without a selection map, because no teacher has weight in any decision: router." in text
        assert "learner, one seed." in text
    assert [path.name for path in (tmp_path / "figures").glob("*selection*")] == ["01-domains-selection-learner.png"]


def test_the_markdown_is_made_without_drawing(tmp_path):
    markdown_of_report, _ = report_of(tmp_path, setting())
    for figure in (tmp_path / "figures").iterdir():
        figure.unlink()
    assert markdown(make_report(tmp_path, read(tmp_path))) == markdown_of_report
    assert not list((tmp_path / "figures").iterdir())


def test_both_reports_have_the_command_and_escape_special_characters(tmp_path):
    markdown, page = report_of(tmp_path, runs("a<b>|c", "nothing", 0.5, seeds=1))
    for text in (markdown, page):
        assert text.count("kd-env bench small --out results/small") == 1
        assert "numpy" in text
        assert "3,200" in text
    assert "a<b>" not in page
    assert "a&lt;b&gt;|c" in page
    assert "| a&lt;b>\\|c |" in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("| nothing")}) == 1


@pytest.mark.long
def test_writing_again_replaces_the_report_and_leaves_no_partial_files(tmp_path):
    first = report_of(tmp_path, setting(seeds=1))
    assert report_of(tmp_path, []) == first
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_figures_of_policies_that_are_no_longer_in_the_records_go(tmp_path):
    for policy in ("learner", "oracle"):
        write_trace(tmp_path / "traces" / f"{policy}-0.parquet")
    report_of(tmp_path, setting())
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    before = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"01-domains-selection-learner.png", "01-domains-selection-oracle.png"} < before
    kept = [r for r in read(tmp_path) if r["policy"] != "learner"]
    (tmp_path / "results.jsonl").unlink()
    report_of(tmp_path, kept)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == before - {"01-domains-selection-learner.png"}


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(InputError, match="no records"):
        write_report(tmp_path)


def test_the_headline_names_the_policy_that_validation_chooses():
    records = [*runs("uniform", "nothing", 0.6, validation=0.5), *runs("router", "reward labels", 0.5, validation=0.7)]
    text = conclusions(summarise(records), records)
    assert text.startswith(
        "Among policies that are not privileged, router (reward labels) is best on validation: mean accuracy 0.700 on validation and"
    )
    assert "and 0.500 on test, n = 5." in text


def test_a_folder_with_many_records_has_fewer_figures():
    assert [num_drawn(number) for number in (1, 5000, 5001)] == [12, 12, 3]


def test_many_settings_and_many_seeds_have_a_bounded_number_of_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("kd_env.benchmark.report_sections.MAX_DRAWN", 2)
    monkeypatch.setattr("kd_env.benchmark.report_figures.MAX_MAPS", 3)
    for seed in range(5):
        write_trace(tmp_path / "traces" / f"learner-{seed}.parquet")
    report = make_report(tmp_path, [run | {"updates": updates} for updates in (50, 60, 70) for run in setting()])
    assert [len(section.plots.plots) for section in report.sections] == [4, 4, 0]
    assert report.sections[0].plots.plots[3].caption.endswith("learner, mean over 3 seeds.")
    assert markdown(report).count("Figures are drawn for the first 2 settings") == 1


def test_a_rival_that_always_diverged_was_run(tmp_path):
    diverged = {"test": None, "validation": None, "diverged": True}
    markdown, _ = report_of(tmp_path, [run | diverged if run["policy"] in ("router", "lr_dev(c=1)") else run for run in setting()])
    assert "All runs of the rivals with the same labels diverged (lr_dev(c=1), router), so nothing is compared with them." in markdown
    assert "was run in this setting" not in markdown


def test_few_seeds_shared_with_the_rival_are_no_few_seeds(tmp_path):
    diverged = {"test": None, "validation": None, "diverged": True}
    markdown, _ = report_of(tmp_path, [run | diverged if run["policy"] == "router" and run["seed"] > 1 else run for run in setting()])
    assert "With fewer than 5 seeds, these policies cannot be called better or worse: router." in markdown
    assert "seeds that they share with the best rival, these policies cannot be compared with it: " in markdown


@pytest.mark.long
def test_long_and_similar_names_have_figures_of_their_own(tmp_path):
    policies = ["learner(rate=0.5)", "learner(rate=-0.5)", f"learner(name={'x' * 250})"]
    written = [run for policy in policies for run in runs(policy, "reward gradient", 0.5, seeds=1, task=f"folder:{'d' * 250}")]
    for number, run in enumerate(written):
        run["trial"] = f"t{number}"
        write_trace(tmp_path / "traces" / f"{run['trial']}.parquet")
    markdown, _ = report_of(tmp_path, written)
    maps = re.findall(r"\((figures/[^)]*selection[^)]*)\)", markdown)
    assert len(set(maps)) == len(policies)
    assert all((tmp_path / name).is_file() for name in maps)
