"""A mini-batch as a vector environment: Gymnasium's conventions, and the batch form's student."""

import itertools
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from pairwise import chosen
from playing import CLASSES, JOINT, KINDS, KNOWLEDGE, MODES, SMALL, TEACHERS, batch, recorded_steps, same, slots, weights_of

from kd_env.distillation import run as run_module
from kd_env.errors import InputError

OF_INSTANCES = [(name, action) for name, action in KINDS if name != KNOWLEDGE]
"""Kinds that decide for each instance alone."""


TAUGHT = [{}, {"credit": "first_order", "student": "mlp(width=8,dropout=0.3)"}, {"reward": "student_loss"}]


@pytest.mark.parametrize(
    ("kind", "keywords"),
    chosen(
        itertools.product(OF_INSTANCES, TAUGHT),
        [*zip(OF_INSTANCES, [TAUGHT[0], TAUGHT[2], TAUGHT[1], TAUGHT[1]], strict=True), (OF_INSTANCES[3], TAUGHT[2])],
    ),
)
def test_slots_and_batch_give_the_same_student_bit_for_bit(kind, keywords):
    name, action = kind
    many, whole = slots(5, name, action=action, **keywords), batch(name, batch_size=5, action=action, **keywords)
    (blocks, info), (whole_blocks, whole_info) = many.reset(seed=3), whole.reset(seed=3)
    many.action_space.seed(0)
    for _ in range(SMALL["updates"]):
        assert all(np.array_equal(blocks[block].reshape(-1), whole_blocks[block]) for block in blocks)
        assert np.array_equal(info["example_ids"], whole_info["example_ids"])
        actions = many.action_space.sample()
        blocks, rewards, terminated, _, info = many.step(actions)
        whole_blocks, reward, ended, _, whole_info = whole.step(actions.reshape(-1))
        assert rewards.mean() == reward
        assert terminated.all() == terminated.any() == ended
        for key in {"credit", "knowledge_credit"} & whole_info.keys():
            assert np.array_equal(info[key], whole_info[key])
        assert ("credit" in info) == ("credit" in keywords)
    assert ended
    assert torch.equal(weights_of(many), weights_of(whole))


@pytest.mark.parametrize(
    ("kind", "batch_size"), chosen(itertools.product(KINDS, [1, 4]), [(kind, [4, 1][number % 2]) for number, kind in enumerate(KINDS)])
)
def test_one_slot_for_the_batch_is_the_batch_form(kind, batch_size):
    name, action = kind
    options = {"granularity": "batch", "batch_size": batch_size, "action": action, "observe_labels": True}
    many, whole = slots(1, name, **options), batch(name, **options)
    many.reset(seed=3)
    whole.reset(seed=3)
    for _ in range(SMALL["updates"]):
        actions = many.action_space.sample()
        blocks, rewards, _, _, info = many.step(actions)
        whole_blocks, reward, _, _, whole_info = whole.step(actions[0])
        assert rewards.tolist() == [reward]
        assert all(np.array_equal(blocks[block][0], whole_blocks[block]) for block in blocks)
        assert info["example_ids"].tolist() == [whole_info["example_ids"].tolist()]
        assert info["reward_terms"]["student_ce"].shape == (1, batch_size)
    assert torch.equal(weights_of(many), weights_of(whole))


SEEDED = [{}, {"credit": "head", "student": "mlp(dropout=0.3)"}]


@pytest.mark.parametrize(
    ("kind", "keywords"),
    chosen(itertools.product(KINDS, SEEDED), [(kind, SEEDED[number % 2]) for number, kind in enumerate(KINDS)]),
)
def test_equal_seeds_give_equal_rollouts_over_several_episodes(kind, keywords):
    name, action = kind

    def rollout(seed):
        env = slots(1 if name == KNOWLEDGE else 3, name, action=action, autoreset_mode="same_step", **keywords)
        env.action_space.seed(0)
        return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(10))]

    first, second, other = rollout(4), rollout(4), rollout(5)
    assert same(first, second)
    assert not same(first, other)
    assert not same(first[0], first[4]), "the second student is another one"


def test_a_slot_decides_for_its_own_instance():
    env = slots(4, kd_weight=0.5, reward="student_loss", optimizer="sgd(lr=0.5)", precision="float64")
    env.reset(seed=0)
    steps = recorded_steps(env)
    _, rewards, *_ = env.step(np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]))
    assert steps[0].weights.tolist() == [[1, 0, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 0, 0], [0.25] * 4]
    assert len(set(rewards)) == 4


CANNOT_BE_MADE = [
    ({"batch_size": 4}, "num_envs=3 slots are one mini-batch, but batch_size=4"),
    ({"granularity": "batch"}, "num_envs=3: with granularity='batch' there is one slot per student; give num_envs=num_students"),
    ({"name": KNOWLEDGE}, "num_envs=3: with granularity='batch' there is one slot per student; give num_envs=num_students"),
    ({"num_students": 2}, "num_envs=3 slots are not num_students=2 whole mini-batches"),
    ({"num_students": 0}, "num_students=0: expected a whole number of at least 1"),
    ({"num_students": "3"}, "num_students=3 whole mini-batches"),
    ({"num_students": 3, "batch_size": 3}, "num_envs=3 slots are mini-batches of 1, but batch_size=3"),
    ({"render_mode": "human"}, "render_mode='human': expected rgb_array or ansi"),
    ({"autoreset_mode": "never"}, "expected next_step, same_step, disabled"),
    ({"credit": "head", "reward": "mixed"}, "use credit=shared"),
    ({"updats": 3}, "did you mean 'updates'"),
    ({"strength": 0.5}, "setting 'strength' is now called 'kd_weight'; use that name"),
]


def test_what_cannot_be_made_is_named():
    for keywords, message in CANNOT_BE_MADE:
        with pytest.raises(InputError, match=message):
            slots(**keywords)


def test_the_autoreset_mode_is_a_name_or_gymnasium_s_own():
    for mode in (*MODES, *AutoresetMode):
        env = slots(autoreset_mode=mode)
        assert env.metadata["autoreset_mode"] is (mode if isinstance(mode, AutoresetMode) else AutoresetMode[mode.upper()])


SETTINGS = {
    TEACHERS: {"num_envs": 3, "action": "one", "credit": "head"},
    KNOWLEDGE: {"num_envs": 2, "num_students": 2, "action": "hard", "exploration_bonus": 0.3, "updates_per_phase": 2, "updates": 5},
    JOINT: {"num_envs": 4, "num_students": 2, "factors": "teachers,abstain,kd_weight", "credit": "first_order"},
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_spec_survives_json(name):
    env = slots(name=name, autoreset_mode="same_step", max_episode_steps=2, **SETTINGS[name])
    again = gym.make_vec(EnvSpec.from_json(env.unwrapped.spec.to_json()))
    assert json.loads(again.unwrapped.spec.to_json()) == json.loads(env.unwrapped.spec.to_json())
    assert (again.num_envs, again.metadata["autoreset_mode"]) == (SETTINGS[name]["num_envs"], AutoresetMode.SAME_STEP)
    assert again.unwrapped.selection.settings == env.unwrapped.selection.settings
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(5)]
    assert same(env.reset(seed=1), again.reset(seed=1))
    steps = [env.step(action) for action in actions]
    assert same(steps, [again.step(action) for action in actions])
    assert [step[3].all() for step in steps] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("kind", "limit"), chosen(itertools.product(KINDS, [None, 2]), [(kind, [2, None][number % 2]) for number, kind in enumerate(KINDS)])
)
def test_snapshots_and_forks_of_slots(kind, limit):
    name, action = kind
    options = {"student": "mlp(width=8,dropout=0.3)", "max_episode_steps": limit, "action": action}
    size = 1 if name == KNOWLEDGE else 3
    options |= {"updates": 7, "updates_per_phase": 2, "exploration_bonus": 0.2} if name == KNOWLEDGE else {}
    env, other = slots(size, name, **options), slots(size, name, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(4)]
    env.step(actions[0])
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    until = 2 if limit else 4
    steps = [env.step(action) for action in actions[1:until]]
    assert (steps[-1][3] if limit else steps[-1][2]).all()
    assert same(other.unwrapped.restore(state), twin.selection.observation())
    assert same(steps, [other.step(action) for action in actions[1:until]])
    assert same(steps, [twin.step(action) for action in actions[1:until]])
    assert torch.equal(weights_of(other), weights_of(env))
    ended = env.unwrapped.snapshot()
    other.unwrapped.restore(ended)
    *_, info = other.step(actions[0])
    assert (other.unwrapped.distillation.update == 0).all(), "the step after the end begins anew, here too"
    assert same(info["example_ids"], other.unwrapped.distillation.observe().example_ids.reshape(info["example_ids"].shape))


def test_all_masks_are_arrays_of_one_flag_per_slot():
    env = slots(credit="head", updates=2)
    _, info = env.reset(seed=0)
    infos = [info, *(env.step(np.ones((3, 4), dtype=np.int8))[4] for _ in range(2))]
    infos += [info["reward_terms"] for info in infos[1:]]
    for info in infos:
        values = [name for name in info if not name.startswith("_")]
        assert {f"_{name}" for name in values} == set(info) - set(values)
        assert all(info[f"_{name}"].tolist() == [True] * 3 for name in values)
        assert all(len(info[name]) == 3 for name in values if not isinstance(info[name], dict))


@pytest.mark.parametrize(
    ("num_envs", "kind"),
    chosen(
        itertools.product([1, 2, 64], OF_INSTANCES),
        [(1, OF_INSTANCES[1]), (2, OF_INSTANCES[0]), (64, OF_INSTANCES[2]), (64, OF_INSTANCES[3])],
    ),
)
def test_any_number_of_slots(num_envs, kind):
    name, action = kind
    env = slots(num_envs, name, action=action, updates=2)
    env.reset(seed=0)
    for _ in range(2):
        blocks, rewards, terminated, _, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(blocks)
        assert rewards.shape == terminated.shape == info["example_ids"].shape == (num_envs,)
    assert terminated.all()


def test_forked_slots_go_their_own_way():
    env = gym.make_vec(TEACHERS, num_envs=8, vectorization_mode="vector_entry_point", task="digits", updates=6)
    env.reset(seed=0)
    all_teachers, no_teacher = np.ones((8, 4), dtype=np.int8), np.zeros((8, 4), dtype=np.int8)
    env.step(all_teachers)
    twin = env.unwrapped.fork()
    assert twin.snapshot() == env.unwrapped.snapshot()
    for _ in range(5):
        env.step(all_teachers)
        twin.step(no_teacher)
    assert env.unwrapped.finished.update.tolist() == twin.finished.update.tolist() == [6]
    assert env.unwrapped.finished.validate()[0] != twin.finished.validate()[0]


def test_making_and_forking_an_environment_begins_one_student_each(monkeypatch):
    built, build_students = [], run_module.build_students
    monkeypatch.setattr(run_module, "build_students", lambda *arguments: built.append(1) or build_students(*arguments))
    env = gym.make(TEACHERS, task="digits", updates=3, batch_size=4).unwrapped
    assert len(built) == 1
    env.reset(seed=0)
    env.fork()
    assert len(built) == 3
    env.restore(env.snapshot())
    assert len(built) == 3, "a snapshot is loaded into the student that is there"
