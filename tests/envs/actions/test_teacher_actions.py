"""Actions over teachers, by hand."""

import math

import numpy as np
import pytest
from gymnasium import spaces

from kd_env.envs.actions import ActionLayout, action_of_weights, make_action
from kd_env.errors import InputError


def weights_from(name, action, num_teachers, rows):
    return make_action(name, ActionLayout(num_teachers, ())).decode(np.asarray(action), rows).weights


def test_spaces_by_hand():
    layout = ActionLayout(3, ())
    assert make_action("subset", layout).space(2) == spaces.MultiBinary(6)
    assert make_action("one", layout).space(2) == spaces.MultiDiscrete([3, 3])
    assert make_action("one", layout).space() == spaces.Discrete(3)
    assert make_action("weights", layout).space(2) == spaces.Box(-1.0, 1.0, (6,), np.float32)
    assert all(make_action(name, layout).trace_columns == {} for name in ("subset", "one", "weights")), "weights are always in a trace"


def test_a_subset_shares_equally_and_may_be_empty():
    weights = weights_from("subset", [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], 4, 4)
    assert weights.tolist() == [[0.5, 0, 0.5, 0], [0, 0, 0, 0], [0.25] * 4, [0, 0, 0, 1]]


def test_one_is_one_hot():
    assert weights_from("one", [2, 0], 3, 2).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert weights_from("one", np.int64(1), 3, 1).tolist() == [[0, 1, 0]]


def test_weights_are_a_sharp_softmax_by_hand():
    weights = weights_from("weights", [0.1 * math.log(3), 0.0, 0.4, 0.4, 1.0, -1.0], 2, 3)
    np.testing.assert_allclose(weights[:2], [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(weights[2], [1.0, math.exp(-20)], rtol=1e-5)


def test_weights_survive_the_way_to_an_action_and_back():
    for num_teachers in (1, 2, 4, 8):
        weights = np.random.default_rng(0).dirichlet(np.ones(num_teachers), 200)
        action = action_of_weights(weights)
        assert action.dtype == np.float32
        assert make_action("weights", ActionLayout(num_teachers, ())).space(200).contains(action.reshape(-1))
        np.testing.assert_allclose(weights_from("weights", action, num_teachers, 200), weights, atol=1e-6)


def test_one_hot_weights_survive_nearly():
    np.testing.assert_allclose(weights_from("weights", action_of_weights(np.eye(4)), 4, 4), np.eye(4), atol=1e-8)


def test_weights_are_encoded_by_hand():
    layout, weights = ActionLayout(3, ()), np.array([[0.0, 0.2, 0.8], [0.5, 0.25, 0.25]])
    assert make_action("subset", layout).encode(np.array([[0.0, 0.2, 0.2], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])).tolist() == [
        [0, 1, 1],
        [1, 1, 1],
        [0, 0, 0],
    ]
    assert make_action("one", layout).encode(weights).tolist() == [2, 0]
    assert (make_action("weights", layout).encode(weights) == action_of_weights(weights)).all()


def test_rounding_and_numbers_of_a_student_that_diverges_are_accepted():
    layout = ActionLayout(2, ("response", "label"))
    assert make_action("soft", layout).encode(np.array([[-1e-8, 1.0 + 1e-7]])).tolist() == [[-1.0, 1.0]]
    assert make_action("subset", layout).encode(np.array([[-1e-8, 0.5]])).tolist() == [[0, 1]]
    assert make_action("hard", layout).encode(np.array([[np.nan, 1.0]])).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("action", "values", "message"),
    [
        ("subset", [[-0.5, 0.5, 0.5]], r"weights below 0, such as -0\.5"),
        ("subset", [[0.0, 0.2, 0.8]], r"equal weights, and the weights of a slot are \[0\.  0\.2 0\.8\]; use action=weights"),
        ("soft", [[0.5, 1.5]], r"gates are in \[0, 1\], got 1\.5"),
        ("hard", [[1.0, 0.5]], r"gates are 0 or 1, got 0\.5.*action=soft"),
    ],
)
def test_values_that_no_action_sets_are_refused(action, values, message):
    kind = make_action(action, ActionLayout(3, ("response", "label")))
    with pytest.raises(InputError, match=message):
        kind.encode(np.array(values))
