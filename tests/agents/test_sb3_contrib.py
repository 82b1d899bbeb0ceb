"""sb3-contrib's algorithms on the slots."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import sb3_contrib
from kd_env.errors import InputError
from kd_env.policies import registry

SMALL = {"task": "digits", "updates": 4, "student": "mlp(width=8)", "reward_examples": 20, "autoreset_mode": "same_step", "num_envs": 16}
ROLLOUT = {"n_steps": 8, "batch_size": 32}
SHORT = dict.fromkeys(("TRPO", "MaskablePPO", "RecurrentPPO"), ROLLOUT)
REPLAY = {"buffer_size": 400, "learning_starts": 32, "batch_size": 32}


def make(name, action=None, **options):
    policy_class = registry.find(f"sb3:{name}")
    settings = policy_class.env_options | ({} if action is None else {"action": action})
    env = gym.make_vec(policy_class.environment, vectorization_mode="vector_entry_point", **SMALL, **settings)
    return policy_class.make(env, 0, **options), env


@pytest.mark.long
@pytest.mark.parametrize("name", registry.SB3_CONTRIB)
def test_it_learns_while_it_teaches(name):
    agent, env = make(name, **SHORT.get(name, REPLAY))
    before = {key: tensor.clone() for key, tensor in agent.model.policy.state_dict().items()}
    agent.learn(env, 16)
    assert agent.model.num_timesteps == 256
    after = agent.model.policy.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in after)
    observation, _ = env.reset(seed=1)
    assert env.action_space.contains(np.asarray(agent.act(observation), env.action_space.dtype))
    entropy = agent.selection_entropy(observation)
    assert (entropy is None) == (name != "TRPO")


def test_an_action_that_does_not_fit_is_refused_in_one_line():
    with pytest.raises(InputError, match="sb3:TQC: ") as error:
        make("TQC", "one")
    assert "\n" not in str(error.value).strip()


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(InputError, match=r"sb3:TRPO needs the package sb3-contrib .*pip install 'kd-env\[contrib\]'"):
        sb3_contrib.TRPO.algorithm()


def test_an_unknown_algorithm_names_the_known_ones():
    with pytest.raises(InputError, match="TRPO"):
        registry.find("sb3:TRPPO")
