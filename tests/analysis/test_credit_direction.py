"""Which teachers credit favours: signs that follow from how the pool is built."""

import gymnasium as gym
import pandas as pd
import pytest

from kd_env.analysis.credit_direction import credit_direction_figure, credit_of_choices
from kd_env.errors import InputError
from kd_env.policies import registry


def measured(teachers, every=20, policy="uniform", **settings):
    policy_class = registry.find(policy)
    options = {"task": "digits", "teachers": teachers, "updates": 80, **policy_class.env_options, **settings}
    env = gym.make_vec(registry.TEACHER_SELECTION, num_envs=32, vectorization_mode="vector_entry_point", **options)
    table = credit_of_choices(env, policy_class.build(env.unwrapped, 0), (0.0, -1.0), seed=3, every=every)
    assert not env.unwrapped.selection.listeners
    return table


@pytest.mark.long
def test_credit_favours_the_experts_while_the_student_is_wrong():
    """Taught by all teachers, a student of `digits/experts` is wrong, and each expert is right in its domain."""
    table = measured("digits/experts")
    assert sorted(table["update"].unique()) == [20, 40, 60]
    late = table[table["update"] > 20].groupby(["smoothing", "choice"])["credit"].mean()
    for smoothing in (0.0, -1.0):
        assert late[smoothing, "best"] > 0.4
        assert late[smoothing, "most_confident"] < 0.0
    assert late[0.0, "best"] != late[-1.0, "best"]


@pytest.mark.long
def test_knowledge_types_count_by_their_strengths():
    alone, with_hint = (measured("digits/experts", 40, knowledge=f"response{more}") for more in ("", ",hint(strength=1e-12)"))
    assert with_hint["credit"].tolist() == pytest.approx(alone["credit"].tolist(), abs=1e-4)


def test_the_figure_has_a_line_for_each_smoothing_and_choice():
    points = [
        (name, update, smoothing, choice, 0.1 * update - smoothing)
        for name in ("uniform", "router")
        for update in (1, 2)
        for smoothing in (0.0, -0.5)
        for choice in ("best", "most_confident")
    ]
    figure = credit_direction_figure(pd.DataFrame(points, columns=["taught_by", "update", "smoothing", "choice", "credit"]))
    first, second = figure.axes
    assert [axes.get_title() for axes in (first, second)] == ["taught by uniform", "taught by router"]
    lines = [line for line in first.lines if len(line.get_xdata()) == 2 and line.get_linewidth() > 1]
    assert [list(line.get_ydata()) for line in lines] == [[0.1, 0.2], [0.1, 0.2], [0.6, 0.7], [0.6, 0.7]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "-0.5"]


@pytest.mark.long
def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match=r"best teachers of pool 'digits/capacity' are not known"):
        measured("digits/capacity")
    with pytest.raises(InputError, match="every=80 is not below the number of updates"):
        measured("digits/experts", every=80)
