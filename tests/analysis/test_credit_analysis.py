"""Correlations and bins with known answers, and credit against improvement in a short run."""

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from kd_env.analysis.credit import binned, correlation, credit_of_teachers, credit_of_updates
from kd_env.errors import InputError
from kd_env.policies import make_policy, run_episode


def small_env(**options):
    make = {"num_envs": 4, "vectorization_mode": "vector_entry_point", "task": "digits", "updates": 12, "action": "weights"}
    return gym.make_vec("kd_env/TeacherSelection-v0", **make, **options)


@pytest.fixture(scope="module")
def env():
    return small_env(credit="first_order", normalize_credit=False, optimizer="sgd(lr=0.000001)", precision="float64")


def test_correlation():
    table = pd.DataFrame({"x": [-1.0, 1.0, 2.0, 4.0], "y": [-1.0, 1.0, 8.0, -64.0]})
    row = correlation(table, "x", "y").iloc[0]
    assert row["pearson"] == pytest.approx(np.corrcoef(table["x"], table["y"])[0, 1])
    assert row["spearman"] == pytest.approx(-0.2)  # ranks 1 2 3 4 and 2 3 4 1
    assert (row["same_sign"], row["rows"]) == (0.75, 4)


def test_bins_are_equally_large_and_sorted_by_the_first_column():
    table = binned(pd.DataFrame({"x": [4.0, 1.0, 3.0, 2.0], "y": [40.0, 10.0, 30.0, 20.0]}), "x", "y", bins=2)
    assert table.to_dict("list") == {"bin": [0, 1], "x": [1.5, 3.5], "y": [15.0, 35.0], "rows": [2, 2]}
    with pytest.raises(InputError, match="4 rows cannot fill 5 bins"):
        binned(pd.DataFrame({"x": [1.0] * 4, "y": [1.0] * 4}), "x", "y", bins=5)


@pytest.mark.long
def test_with_sgd_the_credit_of_an_update_is_its_effect(env):
    table = credit_of_updates(env, make_policy("uniform", env), seed=3)
    assert table["update"].tolist() == list(range(1, 12))
    assert table["effect"].tolist() == pytest.approx(table["credit"].tolist(), rel=0.01)
    assert not env.unwrapped.selection.listeners


def test_credit_of_teachers_is_their_measured_improvement(env):
    table = credit_of_teachers(env, make_policy("uniform", env), seed=3, every=5)
    assert table[["update", "slot", "teacher"]].drop_duplicates().shape == (2 * 4 * 4, 3)
    assert table["update"].unique().tolist() == [5, 10]
    assert correlation(table, "credit", "improvement").loc[0, "pearson"] > 0.99


@pytest.mark.long
def test_measuring_does_not_change_the_student(env):
    def student_after(teach):
        teach()
        return env.unwrapped.finished.student.network.state_dict()

    plain = student_after(lambda: run_episode(env, make_policy("uniform", env), seed=1))
    for measured in (
        student_after(lambda: credit_of_updates(env, make_policy("uniform", env), seed=1)),
        student_after(lambda: credit_of_teachers(env, make_policy("uniform", env), seed=1, every=4)),
    ):
        assert all(value.equal(plain[name]) for name, value in measured.items())


@pytest.mark.long
def test_settings_that_cannot_be_compared_are_refused(env):
    with pytest.raises(InputError, match="normalize_credit=True"):
        credit_of_updates(small_env(credit="first_order"), None)
    for options in ({"credit": "first_order(smoothing=-0.3)"}, {"credit": "first_order", "credit_refresh": 2}):
        with pytest.raises(InputError, match="leave out the options of the credit, and credit_refresh"):
            credit_of_updates(small_env(normalize_credit=False, **options), None)
    with pytest.raises(InputError, match="credit='shared'"):
        credit_of_updates(small_env(), None)
    with pytest.raises(InputError, match="every=0; measure every 1 or more updates"):
        credit_of_teachers(env, make_policy("uniform", env), every=0)
    make = {"num_envs": 1, "vectorization_mode": "vector_entry_point", "task": "digits", "updates": 2}
    credit = {"credit": "first_order", "normalize_credit": False}
    knowledge = gym.make_vec("kd_env/KnowledgeSelection-v0", action="hard", **make, **credit)
    with pytest.raises(InputError, match="action='hard': credit is compared for actions that set the weights of teachers alone"):
        credit_of_updates(knowledge, make_policy("all_knowledge", knowledge))
    with pytest.raises(InputError, match="every=50"):
        credit_of_teachers(env, make_policy("uniform", env))
