"""Records whose fields have other types are left out, with a warning that names file and line."""

import json
from pathlib import Path

import pytest
from hand_made import record

from kd_env.benchmark import records
from kd_env.benchmark.record_types import TYPES, other_type

WRONG = {
    "trial": ["x"], "test": "x", "curve": 5, "config": None, "versions": 5, "diverged": "maybe",
    "policy": None, "seed": 1.5, "updates": True,
    "teachers": "p", "selection_rate": ["x"], "wall_s": None,
}  # fmt: skip


LARGE = [
    ("test", 1e308),
    ("updates", 2**63),
    ("selection_rate", [0.5, 1e300]),
    ("curve", [{"update": 10**400, "validation": 0.5}]),
    ("curve", [{"update": 1, "validation": 0.5, "train_loss": -1e300}]),
]


@pytest.mark.parametrize(("name", "value"), [*WRONG.items(), ("teachers", [1]), ("curve", [5]), ("curve", [{"update": "x"}]), *LARGE])
def test_a_field_of_another_type_is_named_by_line_and_left_out(tmp_path, name, value):
    good, bad = record("uniform", "nothing", 0, 0.5), record("router", "nothing", 0, 0.5) | {name: value}
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (good, bad)))
    with pytest.warns(UserWarning, match=rf"results.jsonl, line 2: {name} (is|holds) .*left out"):
        assert records.read(tmp_path) == [good]


@pytest.mark.parametrize(
    "tuned", [5, None, {}, {"options": {}, "settings": 5, "trials": 3}, {"options": {}, "settings": {}, "trials": "3"}]
)
def test_a_configuration_of_another_form_is_named(tuned):
    with_it = record("router, tuned 3", "nothing", 0, 0.5, config={"tuned": tuned})
    assert other_type(with_it).startswith("config: tuned is ")
    good = {"options": {}, "settings": {}, "trials": 3}
    assert other_type(with_it | {"config": {"tuned": good}}) == ""


@pytest.mark.parametrize("population", ["x", None, 0, 1.5])
def test_a_population_that_is_no_number_of_seeds_is_named(population):
    with_it = record("uniform", "nothing", 0, 0.5, config={"population": population})
    assert other_type(with_it).startswith(f"config: population is {population!r}, expected a whole number")


def test_every_field_has_types():
    assert TYPES.keys() == set(records.FIELDS)


def test_numbers_that_are_not_finite_are_null():
    assert other_type(record("uniform", "nothing", 0, 0.5, reward_sum=None, selection_rate=[None, 0.5]) | {"test": None}) == ""


@pytest.mark.parametrize("folder", sorted(path.parent for path in Path("docs/records").rglob("results.jsonl.gz"))[:1])
def test_committed_records_have_these_types(folder):
    assert records.read(folder)
