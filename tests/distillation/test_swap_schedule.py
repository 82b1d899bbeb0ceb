"""Schedules of the probability of a swap: their values at known points, and what is refused."""

import pytest

from kd_env.distillation.swap_schedule import parse_schedule
from kd_env.errors import InputError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("uniform(p=0.3)", {(0.0, 1.0): 0.3, (0.9, 0.1): 0.3}),
        ("linear(start=0.8,end=0.2)", {(0.0, 1.0): 0.8, (0.5, 0.1): 0.5, (1.0, 1.0): 0.2}),
        ("linear(start=0.8,by_depth=true)", {(0.0, 1.0): 0.8, (0.0, 0.25): 0.2, (0.5, 0.5): 0.2}),
        ("review(start=0.9,stages=3)", {(0.0, 1.0): 0.9, (1 / 6, 1.0): 0.45, (1 / 3, 1.0): 0.9, (0.5, 1.0): 0.45, (1.0, 1.0): 0.0}),
        ("review(start=1,end=0.5)", {(0.0, 1.0): 1.0, (75 / 240, 1.0): 0.75, (150 / 240, 1.0): 1.0, (195 / 240, 1.0): 0.75}),
    ],
)
def test_probabilities(text, values):
    schedule = parse_schedule(text)
    for (progress, depth), expected in values.items():
        assert schedule.probability(progress, depth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unifrm", "unknown block_swap 'unifrm'; did you mean 'uniform'"),
        ("uniform(p=1.1)", r"uniform\(p=1.1\): expected a number"),
        ("linear(start=x)", r"linear\(start='x'\)"),
        ("linear(by_depth=1)", r"by_depth=1\): expected false or true"),
        ("review(stages=-1)", r"review\(stages=-1\)"),
        ("uniform(teacher=0.5)", r"uniform\(teacher=0.5\): expected a whole number"),
        ("review(p=1)", "options: start, end, stages, teacher"),
    ],
)
def test_what_does_not_exist_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_schedule(text)
