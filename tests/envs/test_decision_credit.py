"""Credit of whole decisions: that of the action that means the same, and what is refused."""

import numpy as np
import pytest
import torch
from playing import JOINT, same, slots

from kd_env.envs import decisions
from kd_env.errors import InputError
from kd_env.types import Decision

DIGITS = {"task": "digits", "student": "mlp(width=8)"}
UNIFORM = torch.full((3, 4), 0.25)


@pytest.mark.parametrize("knowledge", ["response", "response,hint(strength=5)"])
def test_credit_of_a_decision_is_that_of_the_action_that_means_it(knowledge):
    keywords = {**DIGITS, "action": "weights", "credit": "first_order", "knowledge": knowledge, "reward_labels": 32, "kd_weight": 0.5}
    acting, deciding = (slots(3, autoreset_mode="disabled", **keywords).unwrapped for _ in range(2))
    acting.reset(seed=2), deciding.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(3):
        action = rng.uniform(-1, 1, (3, 4)).astype(np.float32)
        decision = decisions.of_action(
            deciding.selection.distillation, deciding.selection.action_kind, acting.selection.action_kind.decode(action, 3)
        )
        step = acting.step(action)
        assert same(step, deciding.step(decision))
        assert step[4]["credit"].any()


def test_strengths_of_single_instances_and_left_out_types_have_their_credit():
    keywords = {**DIGITS, "action": "weights", "credit": "first_order", "normalize_credit": False, "reward_labels": 32, "kd_weight": 1.0}
    env = slots(3, autoreset_mode="disabled", knowledge="response,hint(strength=5)", **keywords).unwrapped

    def credit(strengths):
        env.reset(seed=1)
        return env.step(Decision({"response": UNIFORM, "hint": UNIFORM}, strengths, 2.0))[4]["credit"]

    plain = credit({"response": 1.0})
    np.testing.assert_allclose(credit({"response": torch.tensor([1.0, 2.0, 0.0])}), plain * np.array([[1.0], [2.0], [0.0]]), rtol=1e-5)
    hints = credit({"hint": 1.0})
    np.testing.assert_allclose(credit({"response": 1.0, "hint": 0.5}), plain + 0.5 * hints, rtol=1e-4, atol=1e-9)


def test_a_decision_with_a_gradient_is_paid_too():
    keywords = {**DIGITS, "action": "weights", "credit": "first_order", "reward_labels": 32, "kd_weight": 1.0}
    rewards = []
    for needs_gradient in (False, True):
        env = slots(3, autoreset_mode="disabled", **keywords).unwrapped
        env.reset(seed=1)
        strength = torch.ones(3, requires_grad=needs_gradient)
        rewards.append(env.step(Decision({"response": UNIFORM.clone().requires_grad_(needs_gradient)}, {"response": strength}, 2.0))[1])
    assert rewards[0].tolist() == rewards[1].tolist()


def test_credit_of_what_an_action_decides_beside_the_teachers_is_not_paid_for_decisions():
    env = slots(3, JOINT, **DIGITS, credit="first_order").unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError, match="credit='first_order' is paid for one weighting of the teachers, and action='joint' decides more"):
        env.step(Decision({"response": UNIFORM}, {"response": 1.0}, 1.0))


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (
            Decision({"response": UNIFORM, "hint": torch.eye(4)[:3]}, {"response": 1.0}, 1.0),
            "and the decision has several; give all knowledge types the same weights",
        ),
        (Decision({}, {"label": 1.0}, 1.0), "and the decision has no weights; give some"),
    ],
)
def test_a_decision_that_cannot_be_paid_teaches_nothing(decision, message):
    env = slots(3, **DIGITS, credit="first_order", action="weights", kd_weight=0.5, knowledge="response,hint").unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError, match=message):
        env.step(decision)
    assert env.distillation.update == 0
