"""Actions over knowledge types, by hand."""

import numpy as np
from gymnasium import spaces

from kd_env.envs.actions import ActionLayout, make_action

TYPES = ("response", "layer", "relation", "label")


def test_soft_actions_by_hand():
    kind = make_action("soft", ActionLayout(2, TYPES))
    assert kind.space() == spaces.Box(-1.0, 1.0, (4,), np.float32)
    decoded = kind.decode(np.array([[-1.0, 0.0, 0.5, 1.0], [1, 1, -1, -1]]), 2)
    assert decoded.gates.tolist() == [[0.0, 0.5, 0.75, 1.0], [1, 1, 0, 0]]
    assert decoded.weights.tolist() == [[0.5, 0.5]] * 2
    assert decoded.kd_weight is decoded.temperature_scale is None
    assert kind.encode(decoded.gates).tolist() == [[-1.0, 0.0, 0.5, 1.0], [1, 1, -1, -1]]
    assert kind.trace_columns == {"gates": 4}


def test_hard_actions_by_hand():
    kind = make_action("hard", ActionLayout(4, TYPES))
    assert kind.space() == spaces.MultiBinary(4)
    decoded = kind.decode(np.array([1, 0, 0, 1]), 1)
    assert decoded.gates.tolist() == [[1, 0, 0, 1]]
    assert decoded.weights.tolist() == [[0.25] * 4]
    assert kind.encode(decoded.gates).tolist() == [[1, 0, 0, 1]]
    assert kind.trace_columns == {"gates": 4}
