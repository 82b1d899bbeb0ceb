"""Cases for parametrised tests: all pairs of values, or a choice, instead of all combinations."""

import itertools
import os

FULL_PRODUCTS = "KD_ENV_FULL_PRODUCTS"
"""Set this environment variable to run the full products: slow, and what the pairs are compared with."""


def pairwise(*axes, legal=lambda *values: True):
    """Return cases, one value of each axis, so that every pair of values that a legal case can hold is in at least one case.

    The choice is greedy and deterministic: the case that adds the most new pairs, the first of equals.

    Args:
        axes: values of each parameter.
        legal: whether a combination makes a case; it takes one value of each axis.
    """
    axes = [list(axis) for axis in axes]
    places = [case for case in itertools.product(*(range(len(axis)) for axis in axes)) if legal(*_values(axes, case))]
    if not os.environ.get(FULL_PRODUCTS):
        places = _covering(places)
    return [_values(axes, case) for case in places]


def chosen(cases, choice):
    """Return ``choice``, some of ``cases``; all of them where full products are asked for."""
    cases, choice = list(cases), list(choice)
    assert all(case in cases for case in choice), "a choice is made of the cases"
    return cases if os.environ.get(FULL_PRODUCTS) else choice


def _values(axes, places):
    return tuple(axis[place] for axis, place in zip(axes, places, strict=True))


def _covering(cases):
    """Return as few of ``cases`` as greed finds, in their order, that hold all pairs that any of them holds."""
    pairs = [set(itertools.combinations(enumerate(case), 2)) for case in cases]
    missing, chosen = set().union(*pairs), set()
    while missing:
        best = max(range(len(pairs)), key=lambda number: len(pairs[number] & missing))
        chosen.add(best)
        missing -= pairs[best]
    return [cases[number] for number in sorted(chosen)]
