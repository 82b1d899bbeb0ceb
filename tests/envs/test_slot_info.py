"""``info="minimal"``: the same keys after each step and each reset, in both forms."""

import numpy as np
import pytest
from gymnasium.wrappers.vector import DictInfoToList
from playing import CLASSES, KNOWLEDGE, SMALL, TEACHERS, batch, same, slots
from populations import broken, population

from kd_env.envs import slot_info
from kd_env.errors import InputError

MEASURED = {"validation_every": 2, "reward_every": 2, "observe_labels": True, "kd_weight": 0.5}
KEYS = {"example_ids", "diverged"}


def masked(*names):
    return {*names, *(f"_{name}" for name in names)}


@pytest.mark.parametrize("name", CLASSES)
def test_both_forms_have_the_same_keys_after_resets_and_steps(name):
    size = 1 if name == KNOWLEDGE else 3
    whole = batch(name, info="minimal", **MEASURED)
    many, full = (slots(size, name, info=info, batch_size=3 if size == 1 else None, **MEASURED) for info in ("minimal", "full"))
    infos = [(env.reset(seed=0)[1]) for env in (whole, many, full)]
    assert not infos[0]["diverged"]
    whole.action_space.seed(0)
    for _ in range(1 + SMALL["updates"]):
        info, of_slots, complete = infos
        assert info.keys() == KEYS
        assert of_slots.keys() == masked(*KEYS)
        assert of_slots["_example_ids"].all()
        assert of_slots["_diverged"].all()
        assert not of_slots["diverged"].any()
        assert np.array_equal(of_slots["example_ids"].ravel(), info["example_ids"])
        assert same(of_slots["example_ids"], complete["example_ids"])
        if not whole.unwrapped.distillation.done:
            action = whole.action_space.sample()
            of_slots_action = np.reshape(action, many.action_space.shape)
            infos = [env.step(actions)[4] for env, actions in ((whole, action), (many, of_slots_action), (full, of_slots_action))]


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_a_student_that_ends_alone_changes_no_key(mode):
    env = DictInfoToList(population(TEACHERS, autoreset_mode=mode, info="minimal"))
    assert [info.keys() for info in env.reset(seed=0)[1]] == [KEYS] * env.num_envs
    broken(env.unwrapped.distillation, 1)
    ended = np.repeat([False, True, False], env.num_envs // 3)
    actions = np.ones((env.num_envs, 4), dtype=np.int8)
    *_, terminated, _, infos = env.step(actions)
    assert terminated.tolist() == ended.tolist()
    if mode == "next_step":
        assert [info["diverged"] for info in infos] == ended.tolist()
        *_, infos = env.step(actions)
    assert not any(info["diverged"] for info in infos), "the new student has not diverged"
    assert [info.keys() - {"final_obs", "final_info"} for info in infos] == [KEYS] * env.num_envs
    for info in infos if mode == "same_step" else ():
        if "final_info" in info:
            assert info["final_info"].keys() == KEYS
            assert info["final_info"]["diverged"]
    assert sum("final_info" in info for info in infos) == ended.sum() * (mode == "same_step")


@pytest.mark.parametrize("make", [batch, slots])
def test_other_values_are_refused(make):
    with pytest.raises(InputError, match=r"make\(info='none'\): expected full or minimal"):
        make(info="none")


def test_keys_that_no_slot_has_are_left_out():
    info = {"a": np.arange(3), "_a": np.array([True, False, False]), "b": np.arange(3), "_b": np.ones(3, dtype=np.bool_)}
    rest = slot_info.of_slots(info, np.array([False, True, True]))
    assert rest.keys() == masked("b")
    assert rest["_b"].tolist() == [False, True, True]
