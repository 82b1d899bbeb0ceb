"""Kinds of action: which there are, and what is refused."""

import itertools
import math

import numpy as np
import pytest

from kd_env.envs.actions import ACTIONS, ActionLayout, JointAction, KnowledgeAction, TeacherAction, make_action, parse_factors
from kd_env.envs.actions.kind import FACTORS
from kd_env.errors import InputError


def test_every_kind_has_one_base_and_knows_its_name():
    for name in ACTIONS:
        kind = make_action(name, ActionLayout(3, ("response", "label")))
        assert kind.name == name
        assert sum(isinstance(kind, base) for base in (TeacherAction, KnowledgeAction, JointAction)) == 1
        assert kind.decides_teachers or kind.decides_knowledge


@pytest.mark.parametrize("name", ACTIONS)
def test_sampled_actions_decode_to_legal_weights_and_gates(name):
    """Weights of a row are on the simplex or all zero; gates are in [0, 1]."""
    for num_teachers, num_slots in itertools.product([1, 2, 5, 16], [1, 2, 32]):
        assert_legal(name, num_teachers, num_slots)


def assert_legal(name, num_teachers, num_slots):
    kind = make_action(name, ActionLayout(num_teachers, ("response", "label")))
    space = kind.space(num_slots)
    space.seed(0)
    for _ in range(5):
        decoded = kind.decode(space.sample(), num_slots)
        assert decoded.weights.shape == (num_slots, num_teachers)
        assert decoded.weights.dtype == np.float32
        assert (decoded.weights >= 0).all()
        sums = decoded.weights.sum(1)
        empty = sums == 0
        assert name in ("subset", "joint") or not empty.any()
        np.testing.assert_allclose(sums[~empty], 1.0, atol=1e-6)
        assert (decoded.gates is not None) == kind.decides_knowledge
        if decoded.gates is not None:
            assert decoded.gates.shape == (num_slots, 2)
            assert ((decoded.gates >= 0) & (decoded.gates <= 1)).all()


REFUSED = [
    ("subset", np.zeros(5), "expected 6 numbers for 2 actions over 3 teachers"),
    ("subset", np.zeros((2, 4)), "expected 6 numbers"),
    ("subset", np.zeros((3, 2)), r"expected shape \(2, 3\)"),
    ("subset", [0, 1, 2, 0, 1, 0], "zeros and ones"),
    ("subset", [0, 1, 0.5, 0, 1, 0], "zeros and ones"),
    ("subset", [0, 1, -1, 0, 1, 0], "zeros and ones"),
    ("subset", [0, 1, math.nan, 0, 1, 0], "NaN"),
    ("one", [0], "expected 2 numbers"),
    ("one", [0, 3], r"teachers 0\.\.2"),
    ("one", [0, -1], r"teachers 0\.\.2"),
    ("one", [0, 1.5], r"teachers 0\.\.2"),
    ("one", [0, math.inf], "infinite"),
    ("weights", np.zeros(7), "expected 6 numbers"),
    ("weights", np.zeros((3, 2)), r"expected shape \(2, 3\)"),
    ("weights", [0, 0, 0, math.nan, 0, 0], "NaN"),
    ("weights", [0, 0, 0, math.inf, 0, 0], "infinite"),
    ("weights", [0, 0, 0, 1.01, 0, 0], r"in \[-1, 1\]"),
    ("weights", [0, 0, 0, -1.01, 0, 0], r"in \[-1, 1\]"),
    ("soft", np.zeros(5), "expected 4 numbers for 2 actions over 2 knowledge types"),
    ("soft", [0, 0, 0, 1.01], r"in \[-1, 1\]"),
    ("soft", [0, 0, 0, math.nan], "NaN"),
    ("hard", [0, 1, 2, 0], "zeros and ones"),
    ("hard", [0, 1, -1, 0], "zeros and ones"),
    ("hard", np.zeros((4, 1)), r"expected shape \(2, 2\)"),
    ("joint", np.zeros(15), r"expected 16 .* 3 teachers \+ 2 knowledge \+ 1 kd_weight \+ 1 temperature \+ 1 abstain"),
    ("joint", np.zeros((8, 2)), r"expected shape \(2, 8\)"),
    ("joint", [*np.zeros(15), math.inf], "infinite"),
    ("joint", [*np.zeros(15), -1.01], r"in \[-1, 1\]"),
]


def test_actions_outside_the_space_are_refused():
    for name, action, message in REFUSED:
        kind = make_action(name, ActionLayout(3, ("response", "label")))
        with pytest.raises(ValueError, match=f"action '{name}': .*{message}"):
            kind.decode(np.asarray(action), 2)


@pytest.mark.parametrize("name", ["subset", "one", "weights", "soft", "hard"])
def test_encode_is_the_inverse_of_decode(name):
    kind = make_action(name, ActionLayout(3, ("response", "layer", "label")))
    space = kind.space(20)
    space.seed(3)
    action = np.asarray(space.sample()).reshape(20, kind.size)
    decoded = kind.decode(action, 20)
    values = decoded.gates if isinstance(kind, KnowledgeAction) else decoded.weights
    again = kind.decode(kind.encode(values), 20)
    for name_of_part, part in decoded._asdict().items():
        if part is not None:
            np.testing.assert_allclose(getattr(again, name_of_part), part, atol=1e-6)


def test_a_joint_action_has_no_inverse():
    with pytest.raises(
        InputError,
        match=r"action 'joint': weights cannot be converted to this kind of action; return actions, or a kd_env\.types\.Decision",
    ):
        make_action("joint", ActionLayout(2, ("response",))).encode(np.full((1, 2), 0.5))


# Factors


NO_FACTORS = [
    ("", "name at least one of teachers, knowledge"),
    (" , ", "name at least one"),
    ("teachers,kd_wieght", "did you mean 'kd_weight'"),
    ("teachers,strength", "factors='teachers,strength': 'strength' is now called 'kd_weight'; use that name"),
]


def test_factors_that_do_not_exist_are_refused():
    for text, message in NO_FACTORS:
        with pytest.raises(InputError, match=message):
            parse_factors(text)


def test_factors_come_in_one_order():
    assert parse_factors("abstain, teachers,abstain") == ("teachers", "abstain")
    assert parse_factors(",".join(reversed(FACTORS))) == FACTORS
