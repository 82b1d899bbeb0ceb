"""``SB3VecEnv``: slots as Stable-Baselines3 takes them."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import VectorWrapper
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from playing import KINDS, KNOWLEDGE, TEACHERS, recorded_steps, same, slots
from populations import SIZE, STUDENTS, broken, population
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from kd_env.envs import SB3VecEnv
from kd_env.errors import InputError


def sb3(num_envs=8, **keywords):
    return SB3VecEnv(slots(num_envs, autoreset_mode="same_step", **keywords))


ALGORITHMS = {
    "PPO": (PPO, "subset", {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "gamma": 0.0}),
    "DQN": (DQN, "one", {"buffer_size": 200, "learning_starts": 8, "train_freq": 2, "batch_size": 16, "gamma": 0.0}),
    "SAC": (SAC, "weights", {"buffer_size": 200, "learning_starts": 8, "train_freq": 2, "batch_size": 16, "gamma": 0.0}),
}


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


def test_stable_baselines_learns_from_a_population():
    env = VecMonitor(SB3VecEnv(population(TEACHERS, autoreset_mode="same_step", credit="head", updates=3)))
    model = PPO("MultiInputPolicy", env, n_steps=6, batch_size=12, gamma=0.0, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(6 * STUDENTS * SIZE)
    assert any(not torch.equal(previous, now) for previous, now in zip(before, model.policy.parameters(), strict=True))
    assert [episode["l"] for episode in model.ep_info_buffer] == [3] * 2 * STUDENTS * SIZE


# Wrappers


class Masked(VectorWrapper):
    """A wrapper with an attribute of its own and action masks, as MaskablePPO asks for."""

    threshold = 0.5
    teacher_names_of_three = ("a", "b", "c")

    def action_masks(self):
        return np.eye(4, dtype=np.bool_)[np.arange(self.num_envs) % 4]


def wrapped(num_envs=3, **keywords):
    return SB3VecEnv(Masked(RecordEpisodeStatistics(slots(num_envs, autoreset_mode="same_step", **keywords))))


def test_attributes_and_methods_are_found_in_wrappers_with_one_result_a_slot():
    env = wrapped()
    env.reset()
    assert env.get_attr("threshold", indices=[1]) == [0.5]
    assert env.get_attr("selection") == [env.env.unwrapped.selection] * 3
    env.set_attr("threshold", 0.25)
    env.set_attr("colour", "red")
    assert (env.env.threshold, env.env.unwrapped.colour) == (0.25, "red")
    assert env.has_attr("action_masks")
    assert not env.has_attr("nothing")
    np.testing.assert_array_equal(np.stack(env.env_method("action_masks")), np.eye(4, dtype=np.bool_)[:3])
    np.testing.assert_array_equal(env.env_method("action_masks", indices=2), np.eye(4, dtype=np.bool_)[2:3])
    assert env.env_is_wrapped(RecordEpisodeStatistics) == env.env_is_wrapped(Masked) == [True] * 3
    assert env.env_is_wrapped(VecMonitor, indices=[0]) == [False]


class SubclassWithMasks(SB3VecEnv):
    """A subclass of the adapter with action masks, and with attributes of its own."""

    level = 1

    def __init__(self, env):
        super().__init__(env)
        self.threshold = 0.75

    def action_masks(self):
        return np.eye(4, dtype=np.bool_)[:3]


def test_attributes_and_methods_are_found_in_subclasses_of_the_adapter():
    env = VecMonitor(SubclassWithMasks(Masked(slots(3, autoreset_mode="same_step"))))
    assert env.get_attr("level") == [1] * 3
    assert env.get_attr("threshold") == [0.5] * 3, "the wrapper's: what only an instance of the adapter has is looked up last"
    assert np.array_equal(env.env_method("action_masks"), np.eye(4)[:3])
    assert VecMonitor(SubclassWithMasks(slots(3, autoreset_mode="same_step"))).get_attr("threshold") == [0.75] * 3


def test_an_array_with_an_entry_for_each_slot_is_divided():
    env = wrapped()
    env.reset()
    env.step(np.ones((3, 4), dtype=np.int8))
    returns = env.env.env.episode_returns
    assert env.get_attr("episode_returns", indices=[2, 0]) == [returns[2], returns[0]]
    assert env.get_attr("teacher_names_of_three") == [("a", "b", "c")] * 3


def test_an_attribute_is_not_set_for_some_of_the_slots():
    with pytest.raises(InputError, match=r"set_attr\('colour', indices=\[0\]\): the slots share one environment; leave out indices"):
        wrapped().set_attr("colour", "red", indices=[0])


def test_what_a_wrapper_adds_at_the_end_of_an_episode_is_kept():
    env = wrapped()
    env.reset()
    total = np.zeros(3)
    for _ in range(4):
        _, rewards, done, infos = env.step(np.ones((3, 4), dtype=np.int8))
        total += rewards
        assert all(("episode" in info) == done[slot] for slot, info in enumerate(infos))
    assert done.all()
    for slot, info in enumerate(infos):
        assert info["episode"]["l"] == 4
        assert info["episode"]["r"] == pytest.approx(total[slot], abs=1e-5)
        assert info.keys() >= {"terminal_observation", "diverged", "example_ids"}
        assert env.reset_infos[slot].keys() == {"example_ids"}


def test_options_reach_the_reset_and_must_be_the_same_for_all_slots(monkeypatch):
    env, given = sb3(3), []
    reset = env.env.reset
    monkeypatch.setattr(env.env, "reset", lambda **keywords: given.append(keywords["options"]) or reset(seed=keywords["seed"]))
    env.set_options({"a": 1})
    env.reset()
    env.reset()
    assert given == [{"a": 1}, None]
    env.set_options([{"a": 1}, {"a": 2}, {"a": 1}])
    with pytest.raises(InputError, match="set_options gave the slots different options; they share one student"):
        env.reset()


def test_each_slot_has_the_picture_of_its_student():
    env = SB3VecEnv(population(TEACHERS, autoreset_mode="same_step", updates=3, render_mode="rgb_array"))
    env.reset()
    env.step(np.ones((STUDENTS * SIZE, 4), dtype=np.int8))
    pictures = env.get_images()
    assert len(pictures) == STUDENTS * SIZE
    assert all(np.array_equal(picture, pictures[slot - slot % SIZE]) for slot, picture in enumerate(pictures))
    assert env.render("rgb_array").shape[2] == 3
    assert sb3(3, render_mode="ansi").get_images() == sb3(3).get_images() == [None] * 3


def test_the_recipe_for_resuming_in_mid_episode_continues_to_the_last_bit(tmp_path, monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "libraries.md").read_text()
    (recipe,) = (code for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "force_reset" in code)
    begin, resume = recipe.split("# later, in another process\n")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(begin, names)
    assert names["env"].unwrapped.distillation.update.tolist() == [32], "in the middle of the episode"
    names["model"].learn(16 * 16, reset_num_timesteps=False)
    ends = [(weights_of_finished(names["env"]), names["model"].policy.state_dict())]
    exec(resume, names)
    ends.append((weights_of_finished(names["env"]), names["model"].policy.state_dict()))
    assert torch.equal(ends[0][0], ends[1][0])
    assert all(torch.equal(value, ends[1][1][name]) for name, value in ends[0][1].items())


def weights_of_finished(env):
    return torch.cat([parameter.detach().flatten() for parameter in env.unwrapped.finished.student.parameters])


class FirstTwo(VectorWrapper):
    """A wrapper that allows the first two teachers: of each teacher, off and on for subsets."""

    def action_masks(self):
        allowed = np.arange(4) < 2
        mask = np.stack([np.ones(4, np.bool_), allowed], 1).ravel() if isinstance(self.single_action_space, spaces.MultiBinary) else allowed
        return np.tile(mask, (self.num_envs, 1))


@pytest.mark.parametrize("action", ["one", "subset"])
def test_masks_of_a_wrapper_reach_maskable_ppo(action):
    env = FirstTwo(slots(8, autoreset_mode="same_step", action=action))
    steps = recorded_steps(env)
    MaskablePPO("MultiInputPolicy", VecMonitor(SB3VecEnv(env)), n_steps=4, batch_size=16, seed=0, device="cpu").learn(8 * 8)
    weights = np.concatenate([step.weights for step in steps])
    assert (weights[:, 2:] == 0).all()
    assert (weights[:, :2].mean(0) > 0.1).all()
