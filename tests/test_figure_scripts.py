"""The scripts in docs/figures that measure credit run, here with few updates; races.py needs data that are not in the repository."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

SCRIPTS = Path(__file__).parent.parent / "docs" / "figures"


def function_of(script, name, **constants):
    """The function called ``name`` of a script, with other values of the script's constants."""
    function = runpy.run_path(str(SCRIPTS / f"{script}.py"))[name]
    assert constants.keys() <= function.__globals__.keys()
    function.__globals__.update(constants)
    return function


@pytest.mark.long
def test_credit_of_folds():
    credit_of_policies = function_of("credit_of_folds", "credit_of_policies", UPDATES=8)
    credit = credit_of_policies("digits/mixed", 64, seed=100)
    assert list(credit.columns) == ["start", "free_seen", "free_unseen"]
    assert len(credit) == 8
    assert credit.notna().all(axis=None)
    assert (credit["free_seen"] != credit["free_unseen"]).any(), "they are of different learners"


@pytest.mark.long
def test_credit_accuracy():
    kinds = (("first_order", 1), ("difference", 1))
    agreement = function_of("credit_accuracy", "agreement", TASKS={"digits": ("digits/experts", 31, 30)}, KINDS=kinds)
    rows = agreement("digits", seed=0)
    assert [(row["kind"], row["refresh"]) for row in rows] == list(kinds)
    assert all(row["agreement"] > 0.8 for row in rows)


@pytest.mark.long
def test_credit_direction(tmp_path):
    main = function_of("credit_direction", "main", FOLDER=tmp_path, UPDATES=60, SEEDS=[0])
    main()
    measured = pd.read_csv(tmp_path / "credit_direction.csv")
    committed = pd.read_csv(SCRIPTS / "credit_direction.csv", nrows=1)
    assert list(measured.columns) == list(committed.columns)
    assert set(measured["taught_by"]) == {"uniform", "router"}
    assert (tmp_path / "credit_direction.png").stat().st_size > 1000
