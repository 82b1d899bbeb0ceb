"""``SB3VecEnv`` in the company of others: vector wrappers around the slots, subclasses of the adapter, masks, pictures, resuming."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import VectorWrapper
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from playing import TEACHERS, recorded_steps, sb3, slots
from populations import SIZE, STUDENTS, population
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecMonitor

from kd_env.envs import SB3VecEnv
from kd_env.errors import InputError


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
    env, options_of_resets = sb3(3), []
    reset = env.env.reset
    monkeypatch.setattr(env.env, "reset", lambda **keywords: options_of_resets.append(keywords["options"]) or reset(seed=keywords["seed"]))
    env.set_options({"a": 1})
    env.reset()
    env.reset()
    assert options_of_resets == [{"a": 1}, None]
    env.set_options([{"a": 1}, {"a": 2}, {"a": 1}])
    with pytest.raises(InputError, match="set_options gave the slots different options; they share one student"):
        env.reset()


@pytest.mark.long
def test_each_slot_has_the_picture_of_its_student():
    env = SB3VecEnv(population(TEACHERS, autoreset_mode="same_step", updates=3, render_mode="rgb_array"))
    env.reset()
    env.step(np.ones((STUDENTS * SIZE, 4), dtype=np.int8))
    pictures = env.get_images()
    assert len(pictures) == STUDENTS * SIZE
    assert all(np.array_equal(picture, pictures[slot - slot % SIZE]) for slot, picture in enumerate(pictures))
    assert env.render("rgb_array").shape[2] == 3
    assert sb3(3, render_mode="ansi").get_images() == sb3(3).get_images() == [None] * 3


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize("action", ["one", "subset"])
def test_masks_of_a_wrapper_reach_maskable_ppo(action):
    env = FirstTwo(slots(8, autoreset_mode="same_step", action=action))
    steps = recorded_steps(env)
    MaskablePPO("MultiInputPolicy", VecMonitor(SB3VecEnv(env)), n_steps=4, batch_size=16, seed=0, device="cpu").learn(8 * 8)
    weights = np.concatenate([step.weights for step in steps])
    assert (weights[:, 2:] == 0).all()
    assert (weights[:, :2].mean(0) > 0.1).all()
