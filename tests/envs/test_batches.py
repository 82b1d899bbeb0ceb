"""One step is one mini-batch: what Gymnasium asks of an environment, for all settings that go together."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from pairwise import chosen, pairwise
from playing import (
    ACTIONS_OF,
    CLASSES,
    CREDITS,
    EVERY,
    GRANULARITIES,
    JOINT,
    KINDS,
    KNOWLEDGE,
    REWARDS,
    TEACHERS,
    batch,
    can_pay,
    granularities,
    recorded_steps,
    rollout,
    same,
    slots,
    weights_of,
)
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from kd_env.envs.observations import OBSERVATIONS
from kd_env.envs.step import DIVERGED_REWARD

TWO = "digits/experts/upright,digits/experts/inverted"


def settings_that_go_together():
    """Environment, granularity, reward and credit in pairs; the kinds of action take turns, and each has each granularity."""
    cases = pairwise(
        CLASSES,
        GRANULARITIES,
        REWARDS,
        CREDITS,
        legal=lambda name, granularity, reward, credit: granularity in granularities(ACTIONS_OF[name][0]) and can_pay(reward, credit),
    )
    turns = {(name, granularity): itertools.cycle(actions) for name, actions in ACTIONS_OF.items() for granularity in GRANULARITIES}
    cases = [(name, next(turns[name, granularity]), granularity, reward, credit) for name, granularity, reward, credit in cases]
    left_out = [decided for decided in EVERY if decided not in {case[:3] for case in cases}]
    return [*cases, *((*decided, "dev_improvement", "first_order") for decided in left_out)]


EVERYTHING = [
    (*decided, reward, credit) for decided in EVERY for reward, credit in itertools.product(REWARDS, CREDITS) if can_pay(reward, credit)
]
TOGETHER = chosen(EVERYTHING, settings_that_go_together())


def test_the_chosen_settings_hold_every_kind_of_action_and_every_pair():
    assert {(name, action, granularity) for name, action, granularity, _, _ in TOGETHER} == set(EVERY)
    for place in ((0, 3), (0, 4), (2, 3), (2, 4), (3, 4)):
        assert {tuple(case[i] for i in place) for case in TOGETHER} == {tuple(case[i] for i in place) for case in EVERYTHING}


@pytest.mark.parametrize(("name", "action", "granularity", "reward", "credit"), TOGETHER)
def test_both_checkers_pass_without_a_warning(name, action, granularity, reward, credit):
    cheap = (
        {"reward_examples": 8, "student": "mlp(width=4)", "batch_size": 2, "knowledge": "response"} if credit == "counterfactual" else {}
    )
    keywords = {"action": action, "granularity": granularity, "reward": reward, "credit": credit, "updates": 3, **cheap}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = batch(name, teachers=TWO, **keywords)
        check_env(env.unwrapped, skip_render_check=(granularity, reward, credit) != ("batch", "dev_improvement", "shared"))
        check_env_for_sb3(env.unwrapped)


@pytest.mark.parametrize(("name", "observation", "labels"), pairwise(CLASSES, OBSERVATIONS, [False, True]))
def test_both_checkers_pass_for_every_observation(name, observation, labels):
    env = batch(name, observation=observation, observe_labels=labels)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_for_sb3(env.unwrapped)


EXTRA = [{"teacher_cost": 0.1}, {"updates_per_phase": 2}, {"exploration_bonus": 0.5}, {"kd_weight": 1.0}]


@pytest.mark.parametrize(
    ("action", "extra"),
    chosen(
        itertools.product(ACTIONS_OF[KNOWLEDGE], EXTRA),
        [("soft", EXTRA[0]), ("hard", EXTRA[1]), ("soft", EXTRA[2]), ("hard", EXTRA[2]), ("hard", EXTRA[3])],
    ),
)
def test_both_checkers_pass_with_the_settings_of_knowledge_selection(action, extra):
    env = batch(KNOWLEDGE, action=action, **extra)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_for_sb3(env.unwrapped)


SHAPES = [("image", 1, 1), ("image", 3, 256), ("image", 16, 5), ("text", 1, 256), ("text", 16, 1), ("text", 5, 5)]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "num_teachers", "size"), chosen(SHAPES, [SHAPES[0], SHAPES[2], SHAPES[5]]))
def test_every_observation_is_in_its_space(untrained, kind, num_teachers, size):
    """Of tasks of both kinds, any number of teachers and instances, in all sets, labels shown and not, in both forms."""
    student = {"image": "mlp(width=4)", "text": "tiny-bert(width=4,layers=1)"}[kind]
    options = {**untrained(kind, num_teachers), "student": student, "updates": 2}
    for observation, labels, granularity in pairwise(OBSERVATIONS, [False, True], GRANULARITIES):
        shown = {**options, "observation": observation, "observe_labels": labels, "granularity": granularity}
        single, many = batch(batch_size=size, **shown), slots(size if granularity == "instance" else 1, batch_size=size, **shown)
        for env in (single, many):
            first, last = env.reset(seed=0)[0], env.step(np.zeros(env.action_space.shape, dtype=np.int8))[0]
            for blocks in (first, last):
                assert set(blocks) == set(OBSERVATIONS[observation].columns) == set(env.observation_space)
                assert env.observation_space.contains(blocks)
                for name, block in blocks.items():
                    assert block.dtype == np.float32 == env.observation_space[name].dtype
                    assert np.isfinite(block).all()
                    assert block.ndim == (1 if env is single else 2)
        for name, box in many.single_observation_space.items():
            assert (box.low == -10.0).all()
            assert (box.high == 10.0).all()
            assert single.observation_space[name].shape == (many.num_envs * box.shape[0],)


SEEDED = [{}, {"credit": "first_order", "student": "mlp(dropout=0.3)"}, {"reward": "mixed"}]


@pytest.mark.parametrize(
    ("kind", "keywords"),
    chosen(itertools.product(KINDS, SEEDED), [*((kind, SEEDED[number % 3]) for number, kind in enumerate(KINDS)), (KINDS[5], SEEDED[1])]),
)
def test_equal_seeds_give_equal_rollouts_and_others_do_not(kind, keywords):
    name, action = kind
    env, twin = batch(name, action=action, **keywords), batch(name, action=action, **keywords)
    first = rollout(env, seed=7)
    rollout(twin, seed=1)  # what went before does not matter
    assert same(first, rollout(twin, seed=7))
    assert torch.equal(weights_of(env), weights_of(twin))
    assert not same(first, rollout(twin, seed=8))
    assert not same(first, rollout(twin, seed=7, action_seed=1))


def test_resets_without_a_seed_follow_from_the_last_one():
    env, twin = batch(), batch()
    for each in (env, twin):
        each.reset(seed=3)
    first, second = env.reset(), env.reset()
    assert same(first, twin.reset())
    assert same(second, twin.reset())
    assert not same(first, second)


@pytest.mark.parametrize(("name", "action"), KINDS)
def test_the_student_is_taught_as_the_action_decodes(name, action):
    for granularity in granularities(action):
        env = batch(name, action=action, granularity=granularity)
        env.reset(seed=0)
        sample, steps = env.action_space.sample(), recorded_steps(env)
        env.step(sample)
        expected = env.unwrapped.selection.action_kind.decode(sample, 3 if granularity == "instance" else 1)
        assert np.array_equal(steps[0].weights, np.broadcast_to(expected.weights, (3, 4)))
        assert same(steps[0].action, expected)
        assert (steps[0].action.gates is None) == (name == TEACHERS)


@pytest.mark.parametrize(
    ("name", "reward", "credit"), pairwise(CLASSES, REWARDS, CREDITS, legal=lambda name, reward, credit: can_pay(reward, credit))
)
def test_divergence_terminates_with_a_finite_penalty_and_a_clipped_observation(name, reward, credit):
    env = batch(name, teachers=TWO, optimizer="sgd(lr=1e30)", updates=20, reward=reward, credit=credit)
    env.reset(seed=0)
    all_teachers = np.ones(env.action_space.shape, dtype=env.action_space.dtype)
    if name == JOINT:
        all_teachers.reshape(3, -1)[:, -1] = -1.0  # no instance abstains
    rewards, terminated = [], False
    while not terminated:
        observation, paid, terminated, truncated, info = env.step(all_teachers)
        rewards.append(paid)
        assert np.isfinite(paid)
        assert not truncated
        assert env.observation_space.contains(observation)
        for key in ("credit", "knowledge_credit"):
            assert np.isfinite(info.get(key, 0.0)).all()
        assert np.isfinite(info["reward_terms"].get("improvement", 0.0))
    assert DIVERGED_REWARD == -10.0
    assert rewards[-1] == -10.0
    assert len(rewards) < 5
    assert info["diverged"] is True
    assert "validation" not in info
    assert env.unwrapped.finished.diverged.tolist() == [True]
    env.reset(seed=1)
    assert not env.unwrapped.distillation.done, "the next student begins afresh"
    assert weights_of(env).isfinite().all()
