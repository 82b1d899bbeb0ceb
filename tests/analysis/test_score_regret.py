"""Regret against differences computed by hand."""

import math

import pytest
from small_traces import chosen

from kd_env.analysis.score_regret import loss_regret, score_regret
from kd_env.errors import InputError

RECORDS = [
    {"policy": policy, "seed": seed, "test": test, "validation": 0.5}
    for policy, seed, test in [("oracle", 0, 0.9), ("oracle", 1, 0.8), ("mine", 0, 0.7), ("mine", 1, None), ("mine", 2, 0.6)]
]


def test_regret_is_paired_by_seed():
    table = score_regret(RECORDS)
    assert table.to_dict("list") == {"policy": ["oracle", "oracle", "mine"], "seed": [0, 1, 0], "regret": pytest.approx([0, 0, 0.2])}


def test_another_reference_and_another_score():
    assert score_regret(RECORDS, reference="mine").set_index(["policy", "seed"])["regret"].to_dict() == pytest.approx(
        {("oracle", 0): -0.2, ("mine", 0): 0, ("mine", 2): 0}
    )
    assert score_regret(RECORDS, score="validation")["regret"].tolist() == [0, 0, 0, 0]
    with pytest.raises(InputError, match="no record of policy 'router'"):
        score_regret(RECORDS, reference="router")


def test_two_records_of_one_seed_are_refused():
    with pytest.raises(InputError, match="policy 'oracle' has several records of seed 0; choose one setting"):
        score_regret([*RECORDS, {**RECORDS[0], "test": 0.4}])


def test_loss_regret_is_the_difference_in_cross_entropy_of_the_last_updates():
    mine = chosen(*[0] * 8, ce=[9, 9, 9, 9, 1.0, 2.0, 3.0, 4.0])
    its = chosen(*[0] * 8, ce=[0, 0, 0, 0, 0.5, 1.0, 0.5, 1.0])
    table = loss_regret(mine, its, last=0.5)
    assert table.to_dict("list") == {"group": [0, 1], "regret": [1.5, 2.0], "decisions": [2, 2]}
    assert loss_regret(mine, its, last=0.25)["regret"].tolist() == [2.5, 3.0]
    assert loss_regret(its, its)["regret"].tolist() == [0, 0]


def test_unlabelled_examples_have_no_regret():
    unlabelled = chosen(0, 0, ce=[math.nan, math.nan])
    with pytest.raises(InputError, match="has a label"):
        loss_regret(unlabelled, chosen(0, 0))
