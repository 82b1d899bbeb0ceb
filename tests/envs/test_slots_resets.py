"""How episodes of slots end and begin again: Gymnasium's conventions of its own vector environment."""

import copy
import pickle

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from playing import MODES, SMALL, batch, same, slots, weights_of

from kd_env.errors import InputError


def sync(mode, num_envs=3, **keywords):
    """What Gymnasium itself makes of as many separate environments of one instance each."""
    return SyncVectorEnv([lambda: batch(**{"batch_size": 1, **keywords})] * num_envs, autoreset_mode=AutoresetMode[mode.upper()])


def shape_of(value):
    """Keys, types and trailing shapes, all the way down."""
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    if value.dtype == object:
        return [shape_of(inner) for inner in value]
    return value.dtype.kind, value.shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limit", [None, 3])
def test_episodes_end_and_begin_as_in_gymnasium_s_own_vector_environment(mode, limit):
    """The same shapes, types, masks, flags and zero rewards, step by step."""
    ours, theirs = slots(autoreset_mode=mode, max_episode_steps=limit), sync(mode, max_episode_steps=limit)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    ours.reset(seed=0)
    theirs.reset(seed=0)
    length, ended = limit or SMALL["updates"], 0
    for _ in range(2 * length + 2):
        actions = np.zeros((3, 4), dtype=np.int8)
        (blocks, rewards, terminated, truncated, info), reference = ours.step(actions), theirs.step(actions)
        assert shape_of(blocks) == shape_of(reference[0])
        assert ours.observation_space.contains(blocks)
        assert shape_of(rewards) == shape_of(reference[1])
        assert np.array_equal(terminated, reference[2])
        assert np.array_equal(truncated, reference[3])
        assert (rewards == 0).all() == (reference[1] == 0).all(), "the reset step of NEXT_STEP pays nothing"
        of_other_shape = {name: value for name, value in reference[4].items() if name != "example_ids"}  # of one instance each: [3, 1]
        assert info.keys() == reference[4].keys()
        for name, value in of_other_shape.items():
            if name == "reward_terms":
                assert info[name].keys() == value.keys()
            elif name != "final_info":
                assert shape_of(info[name]) == shape_of(value), name
        if "final_info" in info:
            assert info["final_info"].keys() == reference[4]["final_info"].keys()
        if (terminated | truncated).any():
            ended += 1
            assert truncated.all() == (limit is not None)
            if mode == "disabled":
                with pytest.raises(InputError, match=r"call reset\(\) first"):
                    ours.step(actions)
                everyone = {"reset_mask": np.ones(3, dtype=np.bool_)}
                ours.reset(options=dict(everyone))
                theirs.reset(options=dict(everyone))
    assert ended == 2


def test_next_step_shows_the_last_observation_and_then_resets():
    env, by_hand = slots(), slots(autoreset_mode="disabled")
    env.reset(seed=0)
    by_hand.reset(seed=0)
    actions = np.ones((3, 4), dtype=np.int8)
    for _ in range(4):
        step = env.step(actions)
        assert same(step, by_hand.step(actions))
    assert step[2].all()
    finished = env.unwrapped.finished
    blocks, rewards, terminated, truncated, info = env.step(actions)
    assert rewards.tolist() == [0, 0, 0]
    assert not (terminated | truncated).any()
    assert (blocks["progress"] == 0).all()
    assert same(info["example_ids"], env.unwrapped.distillation.observe().example_ids)
    assert env.unwrapped.distillation is not finished is env.unwrapped.finished
    assert (env.unwrapped.distillation.update.tolist(), finished.update.tolist()) == ([0], [4])
    again, info = by_hand.reset()
    assert same(again, blocks), "the next seed follows from the first"


def test_same_step_gives_the_last_observation_and_info_beside_the_first_of_the_next():
    env, by_hand = slots(autoreset_mode="same_step", credit="head"), slots(autoreset_mode="disabled", credit="head")
    env.reset(seed=0)
    by_hand.reset(seed=0)
    actions = np.ones((3, 4), dtype=np.int8)
    for _ in range(4):
        step, reference = env.step(actions), by_hand.step(actions)
    blocks, rewards, terminated, _, info = step
    assert terminated.all()
    assert np.array_equal(rewards, reference[1])
    assert not np.array_equal(blocks["student"], reference[0]["student"])
    assert same(blocks, by_hand.reset()[0])
    assert info["_final_obs"].tolist() == info["_final_info"].tolist() == [True] * 3
    for slot in range(3):
        assert same(info["final_obs"][slot], {name: block[slot] for name, block in reference[0].items()})
    assert same(info["final_info"], reference[4])
    assert info["final_info"]["validation"].tolist() == env.unwrapped.finished.validate()[1].tolist() * 3
    assert info.keys() == {"example_ids", "final_obs", "final_info"} | {"_example_ids", "_final_obs", "_final_info"}


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_student_is_kept_too(mode):
    env = slots(autoreset_mode=mode, max_episode_steps=2)
    env.reset(seed=0)
    for _ in range(2):
        *_, truncated, _ = env.step(np.ones((3, 4), dtype=np.int8))
    assert truncated.all()
    assert env.unwrapped.finished.update.tolist() == [2]


def test_a_reset_touches_neither_what_was_returned_nor_what_is_kept():
    env = slots(autoreset_mode="same_step")
    returned = [env.reset(seed=0)[0]]
    copies = copy.deepcopy(returned)
    for _ in range(6):
        returned.append(env.step(np.ones((3, 4), dtype=np.int8))[0])
        copies.append(copy.deepcopy(returned[-1]))
    assert same(returned, copies)


def test_a_copy_in_the_middle_of_an_episode_is_a_fork():
    for env in (slots(), batch()):
        env.reset(seed=3)
        env.step(env.action_space.sample())
        twin, action = copy.deepcopy(env), env.action_space.sample()
        assert same(env.step(action)[0], twin.step(action)[0])
        with pytest.raises(TypeError, match=r"cannot be pickled; make it again, and restore\(\) the bytes of its snapshot\(\)"):
            pickle.dumps(env)


def test_resets_take_all_slots_of_a_student_or_none():
    env = slots(autoreset_mode="disabled")
    first, second = env.reset(seed=3)[0], env.reset(seed=[3, 8, 9])[0]
    assert same(first, second), "of a list of seeds the first: the slots share one student"
    for mask in ([True, False, True], [True, True], [[True, True, True]]):
        with pytest.raises(InputError, match="expected 3 booleans, equal for the slots of one student, which reset together"):
            env.reset(options={"reset_mask": np.array(mask)})
    with pytest.raises(InputError, match="seed: 0 seeds for 3 slots"):
        env.reset(seed=[])
    with pytest.raises(InputError, match="seed: 2 seeds for 3 slots; use one number, or one per slot"):
        env.reset(seed=[1, 2])
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        slots().step(np.ones((3, 4), dtype=np.int8))


def test_divergence_ends_all_slots_and_the_next_student_starts_afresh():
    env = slots(optimizer="sgd(lr=1e30)", updates=20, autoreset_mode="same_step")
    env.reset(seed=0)
    for _ in range(5):
        blocks, rewards, terminated, _, info = env.step(np.ones((3, 4), dtype=np.int8))
        assert np.isfinite(rewards).all()
        assert env.observation_space.contains(blocks)
        if terminated.all():
            break
    assert rewards.tolist() == [-10.0] * 3
    assert info["final_info"]["diverged"].all()
    assert all(env.single_observation_space.contains(final) for final in info["final_obs"])
    assert weights_of(env).isfinite().all()
