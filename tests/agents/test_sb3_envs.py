"""Stable-Baselines3's algorithms train on every environment that has actions they can give; a warning would be an error."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3

from kd_env.envs import SB3VecEnv

pytestmark = pytest.mark.long

SMALL = {"task": "digits", "updates": 6, "student": "mlp(width=8)", "reward_examples": 20, "kd_weight": 0.5, "autoreset_mode": "same_step"}
TEACHERS = {"id": "kd_env/TeacherSelection-v0", "num_envs": 16, "credit": "first_order"}
JOINT = {"id": "kd_env/JointSelection-v0", "num_envs": 16, "credit": "first_order", "teacher_cost": 0.01}
KNOWLEDGE = {"id": "kd_env/KnowledgeSelection-v0", "num_envs": 4, "num_students": 4}
ROLLOUT = {"n_steps": 8, "batch_size": 32, "gamma": 0.0}
REPLAY = {"buffer_size": 400, "learning_starts": 64, "batch_size": 32, "gamma": 0.0}
CASES = {
    "PPO picks teachers": (PPO, ROLLOUT, TEACHERS | {"action": "subset"}),
    "A2C picks teachers": (A2C, {"n_steps": 4, "gamma": 0.0}, TEACHERS | {"action": "subset"}),
    "DQN picks one teacher": (DQN, REPLAY, TEACHERS | {"action": "one"}),
    "SAC weighs teachers": (SAC, REPLAY, TEACHERS | {"action": "weights"}),
    "TD3 weighs teachers": (TD3, REPLAY, TEACHERS | {"action": "weights"}),
    "PPO picks teachers for two students": (PPO, ROLLOUT, TEACHERS | {"action": "subset", "num_students": 2}),
    "PPO decides all": (PPO, ROLLOUT, JOINT),
    "SAC decides all": (SAC, REPLAY, JOINT),
    "SAC decides all of a batch": (SAC, REPLAY, JOINT | {"granularity": "batch", "num_envs": 4, "num_students": 4}),
    "SAC weighs knowledge": (SAC, REPLAY, KNOWLEDGE | {"action": "soft", "exploration_bonus": 0.1}),
    "TD3 weighs knowledge": (TD3, REPLAY, KNOWLEDGE | {"action": "soft", "updates_per_phase": 2}),
    "PPO picks knowledge": (PPO, ROLLOUT, KNOWLEDGE | {"action": "hard", "credit": "head"}),
}
DECISIONS = 128
"""Whole rollouts of all."""


@pytest.mark.parametrize("case", CASES)
def test_it_trains(case):
    algorithm, hyperparameters, options = CASES[case]
    env = SB3VecEnv(gym.make_vec(vectorization_mode="vector_entry_point", **SMALL | options))
    model = algorithm("MultiInputPolicy", env, seed=0, device="cpu", **hyperparameters)
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    model.learn(DECISIONS)
    assert model.num_timesteps == DECISIONS
    after = model.policy.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert sum(not torch.equal(before[name], after[name]) for name in after) >= len(after) / 2
    finished = env.env.unwrapped.finished
    for run in finished if isinstance(finished, tuple) else [finished]:
        assert run.update.tolist() == [SMALL["updates"]], "students have begun and ended while it learned"
        assert np.isfinite(run.validate()).all()
    env.seed(3)
    seen = env.reset()
    action, _ = model.predict(seen, deterministic=True)
    assert env.env.action_space.contains(action.astype(env.env.action_space.dtype))
    assert np.array_equal(action, model.predict(seen, deterministic=True)[0])
    _, rewards, _, _ = env.step(action)
    assert np.isfinite(rewards).all()
