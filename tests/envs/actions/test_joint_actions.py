"""The joint action: each factor by hand, alone and with the others."""

import math

import numpy as np
import pytest
import torch
from pairwise import pairwise
from playing import JOINT, batch

from kd_env.envs import decisions
from kd_env.envs.actions import ActionLayout, make_action
from kd_env.envs.actions.joint import MAX_TEMPERATURE_SCALE, MIN_TEACHER_WEIGHT
from kd_env.envs.actions.kind import FACTORS

TYPES = ("response", "layer", "relation", "label")
SIZES = {"teachers": 3, "knowledge": 4, "kd_weight": 1, "temperature": 1, "abstain": 1}
ROW = {"teachers": [0.1, 0.0, -0.05], "knowledge": [0.3, -0.2, 0.0, 1.0], "kd_weight": [-0.5], "temperature": [0.5], "abstain": [-0.1]}
"""One decision over three teachers and four types."""
COMBINATIONS = [
    tuple(name for name, decided in zip(FACTORS, case, strict=True) if decided)
    for case in pairwise(*[[True, False]] * 5, legal=lambda *decided: any(decided))
]


def action_of(factors, *changes):
    return np.array([[number for name in factors for number in {**ROW, **change}[name]] for change in changes], dtype=np.float32)


def test_the_numbers_by_hand():
    assert (MIN_TEACHER_WEIGHT, MAX_TEMPERATURE_SCALE) == (0.01, 4.0)
    decoded = make_action("joint", ActionLayout(3, TYPES)).decode(action_of(FACTORS, {}, {"abstain": [0.01]}), 2)
    shares = np.exp([1.0, 0.0, -0.5]) / np.exp([1.0, 0.0, -0.5]).sum()
    np.testing.assert_allclose(decoded.weights, [shares, [0, 0, 0]], rtol=1e-6)
    assert decoded.gates.tolist() == [[1, 0, 0, 1]] * 2, "on above 0"
    assert decoded.kd_weight.tolist() == [0.25] * 2
    np.testing.assert_allclose(decoded.temperature_scale, [2.0] * 2)


@pytest.mark.parametrize("factors", COMBINATIONS, ids="+".join)
def test_factors_that_are_left_out_are_as_the_setting_has_them(factors, untrained):
    """The size of the space, what is decided, and what it means for the loss."""
    setting = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "kd_weight": 0.3, "precision": "float64", "temperature": 3.0}
    env = batch(JOINT, factors=",".join(reversed(factors)), **setting, **untrained("image", 3))
    selection, run = env.unwrapped.selection, env.unwrapped.distillation
    kind, size = selection.action_kind, sum(SIZES[name] for name in factors)
    assert env.action_space.shape == (4 * size,)
    assert kind.size == size
    columns = {"knowledge": ("gates", 4), "kd_weight": ("kd_weight", 1), "temperature": ("temperature_scale", 1)}
    assert kind.trace_columns == dict(columns[name] for name in factors if name in columns)
    decoded = kind.decode(action_of(factors, {}, {"abstain": [1.0]}).ravel(), 2)
    shares = np.exp([1.0, 0.0, -0.5]) / np.exp([1.0, 0.0, -0.5]).sum() if "teachers" in factors else np.full(3, 1 / 3)
    np.testing.assert_allclose(decoded.weights, [shares, shares * ("abstain" not in factors)], rtol=1e-6)
    assert (decoded.gates is None) == ("knowledge" not in factors)
    assert (decoded.kd_weight is None) == ("kd_weight" not in factors)
    assert (decoded.temperature_scale is None) == ("temperature" not in factors)
    env.reset(seed=0)
    run = env.unwrapped.distillation
    decision = decisions.of_action(run, kind, kind.decode(action_of(factors, {}, {}, {"abstain": [1.0]}, {}), 4))
    kd_weight = 0.25 if "kd_weight" in factors else 0.3
    gates = [1.0, 0.0, 0.0, 1.0] if "knowledge" in factors else [1.0] * 4
    for name, gate in zip(TYPES, gates, strict=True):
        expected = torch.full((4,), gate * (1 - kd_weight if name == "label" else kd_weight), dtype=torch.float64)
        strength = torch.as_tensor(decision.strengths[name], dtype=torch.float64).expand(4)
        torch.testing.assert_close(strength, expected, rtol=1e-6, atol=0)
    temperature_scale = 2.0 if "temperature" in factors else 1.0
    temperature = torch.as_tensor(decision.temperature, dtype=torch.float64).expand(4)
    torch.testing.assert_close(temperature, torch.full((4,), 3.0 * temperature_scale, dtype=torch.float64))
    assert (decision.weights["layer"][2] == 0).all() == ("abstain" in factors)
    assert set(decision.weights) == set(run.loss.terms)
    *_, info = env.step(action_of(factors, {}, {}, {"abstain": [1.0]}, {}).ravel())
    assert info["reward_terms"]["teacher_calls"].tolist() == [3, 3, 0 if "abstain" in factors else 3, 3]


def test_a_teacher_with_little_weight_is_not_asked():
    """Below one in a hundred; the others share its weight."""
    kind = make_action("joint", ActionLayout(3, TYPES, ("teachers",)))
    just, barely = (math.log(share / (1 - share) * 2) / 10 for share in (0.0101, 0.0099))
    weights = kind.decode(np.float32([[just, 0, 0], [barely, 0, 0], [1.0, -1.0, -1.0]]), 3).weights
    np.testing.assert_allclose(weights[0], [0.0101, 0.49495, 0.49495], rtol=1e-4)
    np.testing.assert_allclose(weights[1], [0, 0.5, 0.5])
    np.testing.assert_allclose(weights[2], [1, 0, 0])
    assert np.count_nonzero(weights, axis=1).tolist() == [3, 2, 1]


def test_many_teachers_with_equal_weights_are_all_asked():
    weights = make_action("joint", ActionLayout(200, TYPES, ("teachers",))).decode(np.zeros((1, 200)), 1).weights
    np.testing.assert_allclose(weights, 1 / 200, rtol=1e-5)
