"""A decision with numbers that nothing can be taught with is refused."""

import math

import gymnasium as gym
import pytest
import torch

from kd_env.errors import InputError
from kd_env.types import Decision

UNIFORM = torch.full((3, 4), 0.25)


@pytest.mark.parametrize(
    ("strength", "temperature", "message"),
    [
        (math.nan, 1.0, "strength of 'response' is nan; expected a finite number"),
        (math.inf, 1.0, "strength of 'response' is inf; expected a finite number"),
        (1.0, 0.0, "temperature is 0.0; expected a finite number above 0"),
        (1.0, math.inf, "temperature is inf; expected a finite number above 0"),
    ],
)
def test_a_decision_with_such_a_number_teaches_nothing(strength, temperature, message):
    options = {"batch_size": 3, "student": "mlp(width=8)", "action": "weights", "reward_every": 0}
    env = gym.make_vec(
        "kd_env/TeacherSelection-v0", num_envs=3, vectorization_mode="vector_entry_point", task="digits", **options
    ).unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError, match=message):
        env.step(Decision({"response": UNIFORM}, {"response": strength}, temperature))
    assert env.distillation.update == 0
