"""Gymnasium's own wrappers, around batches and around slots, in both modes of automatic reset."""

import itertools

import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.wrappers import vector
from pairwise import chosen
from playing import CLASSES, JOINT, KINDS, KNOWLEDGE, SMALL, TEACHERS, batch, rollout, same, slots
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from kd_env.errors import InputError

LENGTH = SMALL["updates"]
RESETTING = ["next_step", "same_step"]


def population(name=TEACHERS, **keywords):
    """Two students: two slots each, or one where one decision serves the batch."""
    return slots(2 if name == KNOWLEDGE else 4, name, num_students=2, **keywords)


def flat(space, blocks):
    """Blocks end to end, in the order of the space."""
    return np.concatenate([blocks[name] for name in space], axis=-1)


@pytest.mark.parametrize(("name", "action"), KINDS)
def test_flat_and_recorded(name, action):
    env = wrappers.RecordEpisodeStatistics(wrappers.FlattenObservation(wrappers.TimeLimit(batch(name, action=action, updates=10), 4)))
    returned, plain = rollout(env, seed=0), rollout(batch(name, action=action, updates=4), seed=0)
    assert len(returned) == 1 + 4
    assert all(env.observation_space.contains(step[0]) for step in returned)
    assert np.array_equal(returned[0][0], flat(env.unwrapped.observation_space, plain[0][0]))
    *_, terminated, truncated, info = returned[-1]
    assert (terminated, truncated) == (False, True)
    assert info["episode"]["l"] == 4
    assert info["episode"]["r"] == pytest.approx(sum(step[1] for step in returned[1:]))


def test_normalized_after_flattening():
    env, plain = wrappers.NormalizeObservation(wrappers.FlattenObservation(batch())), wrappers.FlattenObservation(batch())
    normalized, raw = (np.stack([step[0] for step in rollout(each, seed=0)]) for each in (env, plain))
    assert np.isfinite(normalized).all()
    moving = raw.std(0) > 0.01
    assert moving.any()
    expected = (raw[-1] - raw.mean(0))[moving] / raw.std(0)[moving]
    np.testing.assert_allclose(normalized[-1][moving], expected, rtol=0.2, atol=0.01)


def test_observations_are_rescaled():
    env = wrappers.RescaleObservation(wrappers.FlattenObservation(batch()), np.float32(0), np.float32(1))
    plain = wrappers.FlattenObservation(batch())
    check_env_for_sb3(env)
    for step, expected in zip(rollout(env, seed=0), rollout(plain, seed=0), strict=True):
        np.testing.assert_allclose(step[0], (expected[0] + 10) / 20, atol=1e-6)


def test_rewards_are_transformed():
    env = wrappers.ClipReward(wrappers.TransformReward(batch(), lambda reward: 1e6 * reward), -1.0, 1.0)
    assert {step[1] for step in rollout(env, seed=0)[1:]} <= {-1.0, 1.0}


def test_actions_are_rescaled():
    env = wrappers.RescaleAction(batch(action="weights"), np.float32(0), np.float32(1))
    plain = batch(action="weights")
    for each in (env, plain):
        each.reset(seed=0)
    half = np.linspace(0, 1, 12, dtype=np.float32)
    assert same(env.step(half), plain.step(2 * half - 1))


@pytest.mark.long
@pytest.mark.parametrize("name", chosen(CLASSES, [JOINT]))
def test_frames_are_collected(name):
    env = batch(name, render_mode="rgb_array_list")
    assert isinstance(env, wrappers.RenderCollection)
    returned = rollout(env, seed=0)
    frames = env.render()
    assert len(frames) == len(returned) == 1 + LENGTH
    assert all(frame.shape == (480, 640, 3) and frame.dtype == np.uint8 for frame in frames)
    assert all((frame != following).any() for frame, following in itertools.pairwise(frames)), "each update shows"
    assert env.render() == []


def test_texts_are_collected():
    env = wrappers.RenderCollection(batch(render_mode="ansi"))
    rollout(env, seed=0)
    assert [text.split()[1] for text in env.render()] == ["0/4", "1/4", "2/4", "3/4", "4/4"]


def test_a_picture_can_be_an_observation():
    env = wrappers.AddRenderObservation(batch(render_mode="rgb_array", updates=2), render_only=True)
    assert all(env.observation_space.contains(step[0]) for step in rollout(env, seed=0))


@pytest.mark.parametrize(
    ("kind", "mode"),
    chosen(itertools.product(KINDS, RESETTING), [(kind, RESETTING[number % 2]) for number, kind in enumerate(KINDS)]),
)
def test_slots_flat_and_recorded(kind, mode):
    """Returns and lengths are those of each episode, over two of them."""
    name, action = kind
    plain = population(name, action=action, autoreset_mode=mode)
    env = vector.RecordEpisodeStatistics(population(name, action=action, autoreset_mode=mode))
    env = vector.FlattenObservation(env) if mode == "next_step" else env  # Gymnasium refuses any other mode
    space, total, ends = plain.single_observation_space, np.zeros(env.num_envs), 0
    shown = (lambda blocks: flat(space, blocks)) if mode == "next_step" else dict
    assert same(env.reset(seed=0)[0], shown(plain.reset(seed=0)[0]))
    env.action_space.seed(0)
    for _ in range(2 * LENGTH + (mode == "next_step")):
        actions = env.action_space.sample()
        (observation, rewards, terminated, _, info), expected = env.step(actions), plain.step(actions)
        assert env.observation_space.contains(observation)
        assert same(observation, shown(expected[0]))
        assert same(rewards, expected[1])
        total += rewards
        assert ("episode" in info) == terminated.any()
        if terminated.any():
            np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-6)
            assert info["episode"]["l"].tolist() == [LENGTH] * env.num_envs
            total, ends = 0 * total, ends + 1
    assert ends == 2


def test_slots_are_normalized_after_flattening():
    env = vector.NormalizeObservation(vector.FlattenObservation(slots(32)))
    observations = [env.reset(seed=0)[0], *(env.step(env.action_space.sample())[0] for _ in range(2 * LENGTH))]
    assert np.isfinite(observations).all()
    moving = observations[-1].std(0) > 0.01
    assert moving.any()
    assert np.abs(np.mean(observations, axis=(0, 1))[moving]).max() < 1.0


@pytest.mark.parametrize("mode", RESETTING)
def test_rewards_of_slots_are_transformed(mode):
    env = vector.ClipReward(vector.NormalizeReward(population(autoreset_mode=mode), gamma=0.0), -0.5, 0.5)
    env.reset(seed=0)
    for _ in range(2 * LENGTH):
        rewards = env.step(env.action_space.sample())[1]
        assert rewards.shape == (4,)
        assert (np.abs(rewards) <= 0.5).all()


@pytest.mark.parametrize("mode", RESETTING)
def test_infos_of_slots_as_lists(mode):
    """Two students, one of which resets: keys follow the masks."""
    options = {"autoreset_mode": mode, "credit": "head", "observe_labels": True, "teacher_cost": 0.1}
    env = vector.DictInfoToList(vector.RecordEpisodeStatistics(population(**options)))
    assert [info.keys() for info in env.reset(seed=0)[1]] == [{"example_ids"}] * 4
    env.unwrapped.distillation.diverged[1] = True
    env.unwrapped._ended[1], env.unwrapped._steps[1] = mode == "next_step", 1
    taught = {"example_ids", "credit", "credit_fold", "diverged", "reward_terms", "validation"}
    if mode == "same_step":
        env.unwrapped.distillation.diverged[1] = False
        env.unwrapped.distillation.update[1] = LENGTH - 1
        env.unwrapped.distillation.forget_batch()
    *_, infos = env.step(np.ones((4, 4), dtype=np.int8))
    assert [info.keys() for info in infos[:2]] == [taught] * 2
    assert infos[0]["reward_terms"].keys() == {"student_ce", "teacher_calls"}
    begun = {"example_ids"} if mode == "next_step" else {"example_ids", "final_obs", "final_info", "episode"}
    assert [info.keys() for info in infos[2:]] == [begun] * 2
    if mode == "same_step":
        assert infos[2]["final_info"].keys() == taught
        assert infos[2]["final_info"]["example_ids"] != infos[2]["example_ids"]
    assert infos[2]["example_ids"] == env.unwrapped.distillation.observe().example_ids[2]


def test_single_wrappers_vectorized():
    keys = ["teachers", "progress"]
    env, plain = vector.VectorizeTransformObservation(population(), wrappers.FilterObservation, filter_keys=keys), population()
    blocks, expected = env.reset(seed=0)[0], plain.reset(seed=0)[0]
    for _ in range(LENGTH + 2):
        assert env.observation_space.contains(blocks)
        assert same(blocks, {name: expected[name] for name in keys})
        blocks, expected = (each.step(np.ones((4, 4), dtype=np.int8))[0] for each in (env, plain))


def test_masked_resets_pass_through_wrappers():
    env = vector.RecordEpisodeStatistics(vector.FlattenObservation(population(autoreset_mode="disabled")))
    env.reset(seed=0)
    actions = np.ones((4, 4), dtype=np.int8)
    env.step(actions)
    env.reset(options={"reset_mask": np.array([True, True, False, False])})
    for _ in range(LENGTH - 1):
        *_, terminated, _, info = env.step(actions)
    assert terminated.tolist() == [False, False, True, True]
    assert info["episode"]["l"].tolist() == [0, 0, LENGTH, LENGTH]
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        env.step(actions)
    env.reset(options={"reset_mask": np.array([False, False, True, True])})
    *_, terminated, _, info = env.step(actions)
    assert terminated.tolist() == [True, True, False, False]
    assert info["episode"]["l"].tolist() == [LENGTH, LENGTH, 0, 0]
