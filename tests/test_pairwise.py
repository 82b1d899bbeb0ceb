"""The generator of test cases covers what it says, with few cases."""

import itertools

import pytest
from pairwise import FULL_PRODUCTS, chosen, pairwise


def pairs_of(cases):
    return {pair for case in cases for pair in itertools.combinations(enumerate(case), 2)}


def never_a2_with_c1(*case):
    return "a2" not in case or "c1" not in case


@pytest.fixture(autouse=True)
def pairs_only(monkeypatch):
    monkeypatch.delenv(FULL_PRODUCTS, raising=False)


@pytest.mark.parametrize("legal", [lambda *case: True, never_a2_with_c1])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 4, 2), (5, 3, 3, 4), (2, 2, 2, 2, 2, 2)])
def test_every_legal_pair_is_covered_and_every_case_is_legal(sizes, legal):
    axes = [[f"{letter}{number}" for number in range(size)] for letter, size in zip("abcdef", sizes, strict=False)]
    product = [case for case in itertools.product(*axes) if legal(*case)]
    cases = pairwise(*axes, legal=legal)
    assert set(cases) <= set(product)
    assert pairs_of(cases) == pairs_of(product)
    assert len(cases) == len(set(cases))
    assert cases == pairwise(*axes, legal=legal)


def test_there_are_few_cases():
    """At least as many as the two longest axes have pairs, and not many more."""
    assert len(pairwise(*[range(2)] * 6)) <= 8
    assert 15 <= len(pairwise(range(5), range(3), range(3), range(2))) <= 18


def test_values_need_not_be_hashable():
    assert len(pairwise([{}, {"a": 1}], [[1], [2]], [False, True])) == 4


def test_the_full_product_is_there_on_demand(monkeypatch):
    monkeypatch.setenv(FULL_PRODUCTS, "1")
    assert pairwise("abc", "de", "fg") == list(itertools.product("abc", "de", "fg"))
    assert chosen(range(5), [1, 3]) == [0, 1, 2, 3, 4]


def test_a_choice_is_made_of_the_cases():
    assert chosen(range(5), [1, 3]) == [1, 3]
    with pytest.raises(AssertionError, match="made of the cases"):
        chosen(range(5), [1, 7])
