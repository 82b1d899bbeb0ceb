"""What an environment keeps: the last student, snapshots, forks, its spec; and what is out of a policy's reach."""

import dataclasses
import itertools
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import data_equivalence
from pairwise import chosen
from playing import (
    CLASSES,
    JOINT,
    KINDS,
    KNOWLEDGE,
    TEACHERS,
    batch,
    rollout,
    same,
    weights_of,
)

from kd_env.errors import InputError
from kd_env.teachers import Pool, load_pool


def test_the_last_student_is_kept_over_resets():
    env = batch()
    assert env.unwrapped.finished is None
    rollout(env, seed=0)
    finished, weights = env.unwrapped.finished, weights_of(env)
    assert finished is env.unwrapped.distillation
    env.reset(seed=1)
    env.step(env.action_space.sample())
    assert env.unwrapped.finished is finished
    assert torch.equal(torch.cat([p.detach().flatten() for p in finished.student.network.parameters()]), weights)


def test_the_last_student_is_kept_when_the_environment_goes_back():
    env = batch()
    env.reset(seed=0)
    state = env.unwrapped.snapshot()
    actions = [env.action_space.sample() for _ in range(4)]
    steps = [env.step(action) for action in actions]
    finished, weights = env.unwrapped.finished, weights_of(env)
    env.unwrapped.restore(state)
    assert env.unwrapped.finished is finished
    assert finished.update.tolist() == [4]
    assert torch.equal(torch.cat([p.detach().flatten() for p in finished.student.parameters]), weights)
    assert same(env.step(actions[0]), steps[0])
    assert env.unwrapped.distillation.update.tolist() == [1]
    assert finished.update.tolist() == [4]


def test_after_the_end_a_reset_is_asked_for():
    env = batch().unwrapped
    rollout(env, seed=0)
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        env.step(env.action_space.sample())


def test_info_is_about_the_mini_batch_that_was_taught():
    env = batch(updates=40, credit="head", reward_every=2)
    env.reset(seed=0)
    train, validated = env.unwrapped.distillation.data.labels["train"], []
    for update in range(1, 41):
        due = env.unwrapped.distillation.observe().example_ids
        *_, info = env.step(env.action_space.sample())
        assert np.array_equal(info["example_ids"], due)
        assert len(train) > info["example_ids"].max()
        assert info["credit"].shape == (3, 4)
        assert info["diverged"] is False
        if "validation" in info:
            validated.append(update)
    assert validated == list(range(2, 41, 2)), "a twentieth of the budget"
    assert info["validation"] == env.unwrapped.distillation.validate()[1][0]


@pytest.mark.parametrize(
    ("kind", "credit"),
    chosen(itertools.product(KINDS, ["shared", "head"]), [(kind, ["shared", "head"][number % 2]) for number, kind in enumerate(KINDS)]),
)
def test_snapshot_and_fork_of_an_environment(kind, credit):
    name, action = kind
    options = {"student": "mlp(dropout=0.3)", "action": action, "credit": credit, "updates": 6}
    options |= {"exploration_bonus": 0.5, "updates_per_phase": 2} if name == KNOWLEDGE else {}
    env = batch(name, **options)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    actions = [env.action_space.sample() for _ in range(2)]
    steps = [env.step(action) for action in actions]
    assert same(steps, [twin.step(action) for action in actions])
    other = batch(name, **options)
    other.reset(seed=5)
    assert same(other.unwrapped.restore(state), env.unwrapped.restore(state))
    assert same(steps, [other.step(action) for action in actions])
    assert torch.equal(weights_of(other), weights_of(twin))
    assert same(steps, [env.step(action) for action in actions]), "the environment itself went back"


def test_a_fork_draws_its_own_seeds_and_actions():
    env, alone = batch().unwrapped, batch().unwrapped
    for each in (env, alone):
        each.reset(seed=0)
        each.action_space.seed(0)
    twin = env.fork()
    twin.reset()
    twin.action_space.sample()
    assert np.array_equal(env.action_space.sample(), alone.action_space.sample())
    assert same(env.reset(), alone.reset())
    assert twin.distillation is not env.distillation


SETTINGS = {
    TEACHERS: {"action": "one", "credit": "head", "observe_labels": True},
    KNOWLEDGE: {"action": "hard", "exploration_bonus": 0.3, "updates_per_phase": 2, "updates": 7},
    JOINT: {"factors": "teachers,abstain,kd_weight", "credit": "first_order", "teacher_cost": 0.1},
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_spec_survives_json(name):
    env = batch(name, max_episode_steps=3, **SETTINGS[name])
    text = env.spec.to_json()
    again = gym.make(EnvSpec.from_json(text))
    assert json.loads(again.spec.to_json()) == json.loads(text)
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    assert again.unwrapped.selection.settings == env.unwrapped.selection.settings
    returned = rollout(env, seed=2)
    assert same(returned, rollout(again, seed=2))
    assert len(returned) == 1 + 3


def test_the_test_split_is_out_of_reach():
    run = batch().unwrapped.distillation
    assert run.data.task.test is None
    assert set(run.data.inputs) == set(run.data.labels) == {"train", "reward", "validation"}


def test_observations_and_rewards_do_not_depend_on_training_labels_or_groups(digits_data):
    task = digits_data.task
    rng = np.random.default_rng(0)
    blind = dataclasses.replace(task.train, labels=rng.permutation(task.train.labels), groups=rng.permutation(task.train.groups))
    returned = []
    for each in (task, dataclasses.replace(task, train=blind)):
        teachers = load_pool("digits/experts", task).teachers  # the same teachers, whatever the labels
        env = gym.make(TEACHERS, task=each, teachers=Pool("same", teachers), updates=4, batch_size=8, credit="first_order")
        env.action_space.seed(0)
        steps = [env.reset(seed=0), *(env.step(env.action_space.sample()) for _ in range(4))]
        returned.append([(step[0], step[1] if len(step) == 5 else 0.0, _without(step[-1], "validation")) for step in steps])
    assert data_equivalence(*returned)


def test_row_numbers_tell_neither_label_nor_group(digits_data):
    train = digits_data.task.train
    rows = np.arange(len(train))
    for hidden, classes in ((train.labels, 10), (train.groups, 4)):
        for modulus in (4, 10, 40):
            guess = np.array([np.bincount(hidden[rows % modulus == rest], minlength=classes).argmax() for rest in range(modulus)])
            assert (guess[rows % modulus] == hidden).mean() < 1 / classes + 0.1


def _without(info, name):
    return {key: value for key, value in info.items() if key != name}


@pytest.mark.parametrize("name", ["reset", "autoreset"])
def test_students_after_a_snapshot_are_the_same(name):
    """The generator that draws their seeds is part of it."""
    if name == "reset":
        first, second = batch(), batch()
        first.reset(seed=0)
        second.reset(seed=5)
        second.unwrapped.restore(first.unwrapped.snapshot())
        first.reset()
        second.reset()
    else:
        first, second = (
            gym.make_vec(TEACHERS, num_envs=4, vectorization_mode="vector_entry_point", task="digits", updates=3) for _ in range(2)
        )
        first.reset(seed=0)
        second.reset(seed=5)
        second.unwrapped.restore(first.unwrapped.snapshot())
        for _ in range(5):
            first.step(np.ones((4, 4), dtype=np.int8))
            second.step(np.ones((4, 4), dtype=np.int8))
    assert first.unwrapped.distillation.seeds.tolist() == second.unwrapped.distillation.seeds.tolist()
