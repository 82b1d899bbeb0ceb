"""``SB3VecEnv``: slots as Stable-Baselines3 takes them."""

import copy

import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from playing import KINDS, KNOWLEDGE, TEACHERS, recorded_steps, same, sb3, slots
from populations import SIZE, STUDENTS, broken, population
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from kd_env.envs import SB3VecEnv
from kd_env.errors import InputError

ALGORITHMS = {
    "PPO": (PPO, "subset", {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "gamma": 0.0}),
    "DQN": (DQN, "one", {"buffer_size": 200, "learning_starts": 8, "train_freq": 2, "batch_size": 16, "gamma": 0.0}),
    "SAC": (SAC, "weights", {"buffer_size": 200, "learning_starts": 8, "train_freq": 2, "batch_size": 16, "gamma": 0.0}),
}


@pytest.mark.long
@pytest.mark.parametrize("name", ALGORITHMS)
def test_stable_baselines_learns_from_the_slots(name):
    algorithm, action, options = ALGORITHMS[name]
    env = sb3(action=action, credit="head")
    steps = recorded_steps(env.env)
    model = algorithm("MultiInputPolicy", VecMonitor(env), seed=0, device="cpu", policy_kwargs={"net_arch": [16]}, **options)
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(8 * 8 * 3)
    assert model.num_timesteps == 8 * len(steps) == 8 * 24, "a slot's decision is a time step, eight of them an update of the student"
    assert any(not torch.equal(before[key], value) for key, value in model.policy.state_dict().items())
    assert all(torch.isfinite(value).all() for value in model.policy.state_dict().values())
    episodes = model.ep_info_buffer
    assert len(episodes) == 6 * 8
    assert {episode["l"] for episode in episodes} == {4}
    returns = np.stack([step.rewards for step in steps]).reshape(6, 4, 8).sum(1).ravel()
    np.testing.assert_allclose([episode["r"] for episode in episodes], returns, atol=1e-5)
    mean, _ = evaluate_policy(model, VecMonitor(sb3(action=action, credit="head")), n_eval_episodes=8)
    assert np.isfinite(mean)


@pytest.mark.parametrize(("name", "action"), [(name, action) for name, action in KINDS if name != KNOWLEDGE])
def test_sb3_gets_what_the_slots_return(name, action):
    env = sb3(3, name=name, action=action, credit="head")
    reference = slots(3, name, action=action, credit="head", autoreset_mode="disabled")
    env.seed(6)
    assert same(env.reset(), reference.reset(seed=6)[0])
    assert env.action_space == reference.single_action_space
    assert env.observation_space == reference.single_observation_space
    for _ in range(4):
        actions = reference.action_space.sample()
        blocks, rewards, done, infos = env.step(actions)
        last, expected, terminated, _, info = reference.step(actions)
        assert rewards.dtype == np.float32
        np.testing.assert_array_equal(rewards, expected.astype(np.float32))
        assert np.array_equal(done, terminated)
        for slot in range(3):
            assert infos[slot]["example_ids"] == info["example_ids"][slot]
            assert np.array_equal(infos[slot]["credit"], info["credit"][slot])
            assert infos[slot]["reward_terms"].keys() == {term for term in info["reward_terms"] if not term.startswith("_")}
            assert infos[slot]["validation"] == info["validation"][slot]
            assert not any(key.startswith("_") for key in infos[slot])
    assert done.all()
    for slot in range(3):
        assert same(infos[slot]["terminal_observation"], {block: rows[slot] for block, rows in last.items()})
        assert infos[slot]["TimeLimit.truncated"] is False
        assert not infos[slot]["diverged"]
        assert env.reset_infos[slot].keys() == {"example_ids"}
    assert same(blocks, reference.reset()[0])


def test_sb3_is_told_of_truncation():
    env = sb3(3, max_episode_steps=2)
    env.reset()
    for _ in range(2):
        *_, done, infos = env.step(np.ones((3, 4), dtype=np.int8))
    assert done.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True] * 3


@pytest.mark.parametrize("mode", ["next_step", "disabled"])
def test_sb3_needs_slots_that_reset_within_the_step(mode):
    with pytest.raises(InputError, match='autoreset_mode="same_step"'):
        SB3VecEnv(slots(autoreset_mode=mode))


def test_sb3_reaches_attributes_and_methods_of_the_one_environment():
    env = sb3(3)
    env.reset()
    assert env.get_attr("num_envs") == [3] * 3
    assert len(env.env_method("snapshot", indices=[0, 2])) == 2
    env.set_attr("render_mode", None)
    assert env.env_is_wrapped(RecordEpisodeStatistics) == [False] * 3
    env.close()


# Populations


def test_stable_baselines_sees_each_student_end():
    env = SB3VecEnv(population(TEACHERS, autoreset_mode="same_step", credit="head", updates=3))
    env.seed(5)
    env.reset()
    assert env.env.unwrapped.distillation.seeds.tolist() == [5, 6, 7]
    broken(env.env.unwrapped.distillation, 1)
    actions = np.ones((STUDENTS * SIZE, 4), dtype=np.int8)
    ends = []
    for _ in range(4):
        blocks, rewards, done, infos = env.step(actions)
        ends.append(done[::SIZE].tolist())
        assert np.array_equal(np.repeat(done[::SIZE], SIZE), done)
        ids = env.env.unwrapped.distillation.observe().example_ids
        for slot, info in enumerate(infos):
            assert ("terminal_observation" in info) == ("TimeLimit.truncated" in info) == done[slot]
            assert info.keys() >= {"example_ids", "diverged", "credit", "reward_terms"}, "of the step that was taken"
            assert info["example_ids"] != ids[slot], "not of the mini-batch that comes next"
            if done[slot]:
                assert env.observation_space.contains(info["terminal_observation"])
                assert not same(info["terminal_observation"], {name: block[slot] for name, block in blocks.items()})
                assert env.reset_infos[slot] == {"example_ids": ids[slot]}
    assert ends == [[False, True, False], [False] * 3, [True, False, True], [False, True, False]]
    assert rewards.dtype == np.float32


@pytest.mark.long
def test_stable_baselines_learns_from_a_population():
    env = VecMonitor(SB3VecEnv(population(TEACHERS, autoreset_mode="same_step", credit="head", updates=3)))
    model = PPO("MultiInputPolicy", env, n_steps=6, batch_size=12, gamma=0.0, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(6 * STUDENTS * SIZE)
    assert any(not torch.equal(previous, now) for previous, now in zip(before, model.policy.parameters(), strict=True))
    assert [episode["l"] for episode in model.ep_info_buffer] == [3] * 2 * STUDENTS * SIZE
