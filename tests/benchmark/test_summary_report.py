"""Tables of hand-made records, and a report that claims no more than they support."""

import base64
import json
import math
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kd_env.analysis.figures import ACCESS_COLOURS
from kd_env.benchmark.records import FIELDS, append
from kd_env.benchmark.report import write_report
from kd_env.benchmark.summary import ACCESS, best_rival, by_setting, summarise
from kd_env.errors import InputError

NOISE = [0.0, 0.01, -0.01, 0.02, -0.02]


def record(policy, access, seed, test, **changes):
    known = {
        "suite": "small", "task": "domains", "policy": policy, "access": access, "seed": seed, "student": "mlp", "teachers": ["p", "q"],
        "pool": "experts", "updates": 100, "metric": "accuracy", "test": test, "validation": test, "reward_split": test,
        "reward_labels": 64, "wall_s": 2.0, "peak_rss_mb": 500.0, "device": "cpu",
        "student_forward_examples": 3200, "reward_forward_examples": 0, "teacher_forward_examples": 0,
        "versions": {"numpy": "2.4"}, "config": {"kd_weight": 1.0, "command": "kd-env bench small --out results/small"},
        "trial": f"{policy}-{seed}", "diverged": False, "curve": [{"update": u, "validation": test * u / 100} for u in (0, 50, 100)],
    }  # fmt: skip
    return dict.fromkeys(FIELDS) | known | changes


def runs(policy, access, mean, seeds=5, **changes):
    return [record(policy, access, seed, mean + NOISE[seed], **changes) for seed in range(seeds)]


def setting(seeds=5):
    return [
        *runs("uniform", "nothing", 0.4, seeds),
        *runs("router", "reward labels", 0.7, seeds),
        *runs("lr_dev(c=1)", "reward labels", 0.5, seeds),
        *[record("learner", "reward gradient", s, 0.75 + NOISE[s] + [0, 0.01, 0, 0.01, 0][s], reward_split=0.8) for s in range(seeds)],
        *runs("entropy", "teacher outputs", 0.45, seeds),
        *runs("oracle", "privileged", 0.8, seeds),
    ]


def write_trace(path, groups=("even", "odd")):
    rows = [(u, b, u * 4 + b, b % 2, b % 2, 1.0, 0.1, 1.0) for u in range(30) for b in range(4)]
    names = ["update", "slot", "example_id", "group", "teacher", "weight", "reward", "student_ce"]
    table = pyarrow.table([np.array(column) for column in zip(*rows, strict=True)], names=names)
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"group_names": json.dumps(groups), "teacher_names": '["p", "q"]'}), path)


def row(table, policy):
    return table[table["policy"] == policy].iloc[0]


def report_of(directory, records):
    for each in records:
        append(directory, each)
    page = write_report(directory)
    return (directory / "report.md").read_text(), page.read_text()


def test_every_access_class_has_a_colour():
    assert set(ACCESS_COLOURS) == set(ACCESS)


def test_rows_are_sorted_by_access_then_name():
    assert summarise(setting())["policy"].tolist() == ["uniform", "entropy", "learner", "lr_dev(c=1)", "router", "oracle"]


def test_a_row_by_hand():
    learner = row(summarise(setting()), "learner")
    assert (learner.n, learner.pairs, learner.diverged) == (5, 5, 0)
    assert learner.test == pytest.approx(0.754)
    assert learner.gap == pytest.approx((0.35 * 3 + 0.36 * 2) / 5 / 0.4)
    assert learner.overfit == pytest.approx(0.8 - 0.754)
    assert learner.difference == pytest.approx(0.054)
    assert learner.difference_low == pytest.approx(0.054 - 2.7764 * math.sqrt(0.00003 / 5), abs=1e-6)
    assert (learner.wall_s, learner.student_forward_examples) == (2.0, 3200)


def test_only_policies_that_use_reward_labels_are_compared_with_the_rival():
    table = summarise(setting())
    assert table.loc[table["pairs"] > 0, "policy"].tolist() == ["learner", "lr_dev(c=1)"]
    assert table.loc[table["rival"], "policy"].tolist() == ["router"]


def test_the_rival_is_chosen_on_validation_and_matched_without_its_options():
    records = [record("router", "reward labels", 0, 0.9, validation=0.1), record("lr_dev(c=1)", "reward labels", 0, 0.2, validation=0.3)]
    assert best_rival(records) == "lr_dev(c=1)"
    assert best_rival([record("router_free", "reward labels", 0, 0.9)]) is None


def test_p_values_are_corrected_for_the_number_of_comparisons():
    alone = summarise([r for r in setting() if r["policy"] in ("router", "learner")])
    two = summarise([*setting(), *runs("worse", "reward scalar", 0.7, validation=0.1)])
    assert row(two, "learner").p > row(alone, "learner").p
    assert row(two, "worse").p == 1.0


def test_pairs_are_the_seeds_that_both_have():
    learners = [record("learner", "reward scalar", 4, 0.6), record("learner", "reward scalar", 9, 0.0)]
    learner = row(summarise([*runs("router", "reward labels", 0.5), *learners]), "learner")
    assert (learner.n, learner.pairs) == (2, 1)
    assert learner.difference == pytest.approx(0.6 - 0.48)
    assert math.isnan(learner.difference_low)


def test_no_gap_without_an_oracle_or_where_it_is_not_above_uniform():
    assert math.isnan(row(summarise([r for r in setting() if r["policy"] != "oracle"]), "learner").gap)
    upside_down = [r | ({"test": 0.1} if r["policy"] == "oracle" and r["seed"] == 2 else {}) for r in setting()]
    assert math.isnan(row(summarise(upside_down), "learner").gap)


def test_a_diverged_run_is_counted_and_not_averaged():
    records = setting()
    records[0] |= {"test": None, "validation": None, "reward_split": None, "diverged": True}
    uniform = row(summarise(records), "uniform")
    assert (uniform.n, uniform.diverged) == (4, 1)
    assert uniform.test == pytest.approx(0.4)


def test_settings_differ_by_labels_and_by_every_option_that_varies():
    strong = [record("uniform", "nothing", 0, 0.4), record("router", "reward labels", 0, 0.4)]
    weak = [record("uniform", "nothing", 0, 0.3, config={"kd_weight": 0.5, "command": "another"})]
    few = [record("uniform", "nothing", 0, 0.3, reward_labels=8)]
    groups = by_setting([*strong, *weak, *few])
    assert list(groups.values()) == [strong, weak, few]
    assert [s.options for s in groups] == [(("kd_weight", "1.0"),), (("kd_weight", "0.5"),), ()]


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
