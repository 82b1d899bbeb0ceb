"""Credit that a policy computes for itself: of the labels that it has, and without an effect on the credit that is paid."""

import numpy as np
import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs.credit import first_order
from kd_env.policies import PolicyContext

SETTINGS = {
    "updates": 6, "student": "mlp(width=8)", "batch_size": 8, "reward_labels": 40, "action": "weights",
    "credit": "first_order(examples=16,decay=0.9)", "credit_refresh": 2,
}  # fmt: skip


def started():
    env = make_env(Trial("digits", "gradient_credit", 0, settings=SETTINGS))
    env.reset(seed=0)
    return env, PolicyContext(env, "own", "reward labels")


def test_it_does_not_change_what_the_environment_pays():
    paid = []
    for asks in (False, True):
        env, context = started()
        paid.append([])
        for _ in range(5):
            if asks:
                before = int(env.selection.meter.state.forward_examples[0])
                context.credit(("response",))
                assert env.selection.meter.state.forward_examples[0] > before, "its passes are counted"
            paid[-1].append(env.step(np.zeros((8, 4), dtype=np.float32))[4]["credit"])
    assert np.array_equal(paid[0], paid[1])


def test_it_is_of_the_labels_that_the_policy_has():
    env, context = started()
    half = context.reward_positions[::2]
    of_half = context.with_reward_positions(half).credit(("response",))["response"]
    assert not torch.allclose(of_half, context.credit(("response",))["response"])
    run, meter = env.selection.distillation, env.selection.meter
    meter_of_half = RewardMeter(meter.split.with_positions(half[None]), [0], meter.examples, meter.measure)
    expected = first_order(run, meter_of_half, ("response",))["response"]
    assert torch.equal(of_half, expected)
