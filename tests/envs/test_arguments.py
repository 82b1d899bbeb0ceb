"""Misuse of ``reset`` and of the keywords of an environment: one line, or accepted where Gymnasium accepts it."""

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kd_env.envs.arguments import checked_options, checked_seed
from kd_env.errors import InputError


@pytest.mark.parametrize("seed", [1.5, "3", -1, 2**70, True, [1], np.float64(2)])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match=r"reset\(seed=.*expected None or a whole number"):
        checked_seed(seed)


def test_numpy_integers_are_seeds():
    assert checked_seed(np.int64(3)) == 3
    assert type(checked_seed(np.uint8(3))) is int
    assert checked_seed(None) is None


@pytest.mark.parametrize("options", [[1], "x", 5])
def test_options_are_a_dict(options):
    with pytest.raises(InputError, match="expected None or a dict"):
        checked_options(options)


def test_unknown_options_are_refused_where_some_are_known():
    assert checked_options({"mine": 1}) == {"mine": 1}, "Gymnasium's wrappers may pass options of their own"
    with pytest.raises(InputError, match="unknown reset_masks; known is reset_mask"):
        checked_options({"reset_masks": [True]}, ("reset_mask",))


@pytest.fixture(scope="module")
def slots():
    return gym.make_vec(
        "kd_env/TeacherSelection-v0", num_envs=8, vectorization_mode="vector_entry_point", task="digits", updates=3
    ).unwrapped


def test_numpy_seeds_start_the_same_student(slots):
    first = slots.reset(seed=3)[0]
    assert_array_equal(slots.reset(seed=np.int64(3))[0]["student"], first["student"])
    assert_array_equal(slots.reset(seed=np.full(8, 3))[0]["student"], first["student"])
    for wrong in (
        {"options": [1]},
        {"options": {"reset_masks": np.ones(8, bool)}},
        {"seed": np.array(3.0)},
        {"seed": 1.5},
        {"seed": 2**70},
        {"seed": "ab"},
        {"seed": ["x"] * 8},
    ):
        with pytest.raises(InputError):
            slots.reset(**wrong)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.full((8, 4), "a"), "real numbers"),
        (np.full((8, 4), None), "real numbers"),
        (np.ones((8, 4), dtype=complex), "real numbers"),
        ([[1], [1, 2]], "is not an array of numbers"),
    ],
)
def test_actions_are_numbers(slots, actions, message):
    slots.reset(seed=0)
    with pytest.raises(InputError, match=message):
        slots.step(actions)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"teachers": 5}, "teacher"),
        ({"teachers": ["digits/experts"]}, "teacher"),
        ({"teachers": [5]}, "teacher"),
        ({"bank": 5}, "expected the path of a folder"),
    ],
)
@pytest.mark.parametrize("vector", [True, False])
def test_teachers_and_bank_of_other_types(keywords, message, vector):
    make = gym.make_vec if vector else gym.make
    options = {"num_envs": 8, "vectorization_mode": "vector_entry_point"} if vector else {}
    with pytest.raises(InputError, match=message):
        make("kd_env/TeacherSelection-v0", task="digits", **options, **keywords)
