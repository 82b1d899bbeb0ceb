"""The table of tuned policies beside the same policies by default."""

import pytest
from hand_made import runs, setting

from kd_env.benchmark.records import append, read
from kd_env.benchmark.report import make_report, markdown, write_report

TUNED = {"options": {"window": 4}, "settings": {"temperature": 3.0, "kd_weight": 1.0}, "trials": 12}
CONFIG = {"kd_weight": 1.0, "command": "kd-env bench small --tune 12", "tuned": TUNED}


def report(directory, records):
    append(directory, *records)
    return markdown(make_report(directory, read(directory)))


@pytest.mark.long
def test_tuned_policies_are_compared_with_themselves_by_default_over_the_seeds_of_both(tmp_path):
    others = [*runs("uniform, tuned 12", "nothing", 0.5, config=CONFIG), *runs("new, tuned 12", "nothing", 0.6, config=CONFIG)]
    text = report(tmp_path, [*setting(), *others])
    assert "### Tuned policies" in text
    assert "| new | 12 | window=4, temperature=3.0 | 5 | – | 0.600 | – |" in text
    assert "| uniform | 12 | window=4, temperature=3.0 | 5 | 0.400 | 0.500 | +0.100 [+0.100, +0.100], p < 0.001 |" in text
    assert text.count("## domains, pool experts") == 1, "tuned and default policies are compared in one setting"
    assert "Tuned policies" in write_report(tmp_path).read_text()


def test_few_seeds_allow_no_claim_and_no_change_is_named(tmp_path):
    config = CONFIG | {"tuned": {"options": {}, "settings": {}, "trials": 3}}
    text = report(tmp_path, [*setting(2), *runs("uniform, tuned 3", "nothing", 0.4, 2, config=config)])
    assert "| uniform | 3 | the default | 2 | 0.405 | 0.405 | +0.000 [+0.000, +0.000], p = 1.000, n = 2: no claim |" in text


def test_without_tuned_policies_there_is_no_table(tmp_path):
    assert "Tuned" not in report(tmp_path, setting())


def test_a_tuned_rival_is_a_rival(tmp_path):
    text = report(tmp_path, [*setting(), *runs("router, tuned 12", "reward labels", 0.72, config=CONFIG)])
    assert "The best rival with the same labels, chosen on validation, is router, tuned 12." in text
