"""Difficulty of examples with known cross-entropies."""

import math

import pytest
from small_traces import small_trace

from kd_env.analysis.difficulty import difficulty, difficulty_levels, selection_by_difficulty
from kd_env.errors import InputError


def run(*losses, teacher=0):
    """A run that sees example i with the loss number i, in one mini-batch."""
    return small_trace([(0, i, i, 0, teacher, 1.0, loss) for i, loss in enumerate(losses)])


def test_difficulty_is_the_mean_cross_entropy_over_decisions_and_seeds():
    again = small_trace([(0, 0, 0, 0, 0, 0.5, 1.0), (0, 0, 0, 0, 1, 0.5, 1.0), (1, 0, 0, 0, 0, 1.0, 4.0)])  # two decisions, three rows
    assert difficulty({0: again, 1: run(1.0, 3.0)}).to_dict() == {0: 2.0, 1: 3.0}


def test_levels_are_equally_large_parts():
    assert difficulty_levels({0: run(0.5, 2.0, 0.1, 3.0, 1.0, 0.7)}).to_dict() == {0: 0, 1: 2, 2: 0, 3: 2, 4: 1, 5: 1}
    assert difficulty_levels({0: run(0.5, 2.0)}, levels=2).tolist() == [0, 1]


def test_examples_without_a_label_have_no_level():
    assert difficulty_levels({0: run(math.nan, 1.0, 2.0)}, levels=2).to_dict() == {1: 0, 2: 1}
    with pytest.raises(InputError, match="no example of the traces has a label"):
        difficulty({0: run(math.nan)})
    with pytest.raises(InputError, match="difficulty: no traces"):
        difficulty({})


def test_selection_by_difficulty():
    levels = difficulty_levels({0: run(0.1, 0.2, 3.0, 4.0)}, levels=2)
    rows = [(0, 0, 0, 0, 0, 1.0, 0), (0, 1, 1, 0, 1, 1.0, 0), (0, 2, 2, 0, 1, 1.0, 0), (0, 3, 9, 0, 0, 1.0, 0)]  # 9 has no level
    means = selection_by_difficulty(small_trace(rows), levels, bins=1).set_index(["level", "teacher"])["weight"]
    assert means.to_dict() == {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0, (1, 1): 1}
