"""Slots over several students: each student as it would be alone, whatever happens to the others."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from pairwise import chosen
from playing import ACTIONS_OF, CLASSES, EVERY, JOINT, KINDS, KNOWLEDGE, MODES, TEACHERS, same, slots
from populations import FLOAT64, SIZE, STUDENTS, alone, broken, close, of_student, population

from kd_env.errors import InputError


@pytest.mark.parametrize(
    ("decided", "credit"),
    chosen(
        itertools.product(EVERY, ["shared", "first_order"]),
        [
            ((TEACHERS, "subset", "instance"), "first_order"),
            ((TEACHERS, "one", "batch"), "shared"),
            ((TEACHERS, "weights", "batch"), "first_order"),
            ((KNOWLEDGE, "soft", "batch"), "first_order"),
            ((KNOWLEDGE, "hard", "batch"), "shared"),
            ((JOINT, "joint", "instance"), "shared"),
            ((JOINT, "joint", "batch"), "first_order"),
        ],
    ),
)
def test_three_students_are_three_environments(decided, credit):
    name, action, granularity = decided
    options = {"action": action, "credit": credit, "observe_labels": True, "updates": 5, **FLOAT64}
    options |= {"exploration_bonus": 0.5, "updates_per_phase": 2} if name == KNOWLEDGE else {"teacher_cost": 0.01}
    env = population(name, granularity, **options)
    apart = [alone(name, granularity, **options) for _ in range(STUDENTS)]
    blocks, info = env.reset(seed=7)
    env.action_space.seed(0)
    done, steps, returns = np.zeros(env.num_envs, dtype=np.bool_), 0, np.zeros(env.num_envs)
    for student, lone in enumerate(apart):
        lone_blocks, lone_info = lone.reset(seed=7 + student)
        assert close(of_student(blocks, student), lone_blocks)
        assert close(of_student(info, student), lone_info)
    while not done.all():
        actions = env.action_space.sample()
        step, steps = env.step(actions), steps + 1
        done = step[2]
        returns += step[1]
        for student, lone in enumerate(apart):
            expected = lone.step(actions.reshape(STUDENTS, -1, *actions.shape[1:])[student])
            for part, lone_part in zip(step, expected, strict=True):
                assert close(of_student(part, student), lone_part)
    assert steps == (3 if name == KNOWLEDGE else 5)
    assert len(set(returns)) >= STUDENTS, "they are three different students"
    for finished, lone in zip(env.unwrapped.finished, apart, strict=True):
        run = lone.unwrapped.finished
        assert close(finished.validate()[0], run.validate()[0], 1e-9)
        assert (finished.seeds, finished.update) == (run.seeds, run.update)
        assert finished.state.forward_examples == run.state.forward_examples - SIZE, "less what the lone one has looked at since"


def test_seeds_are_numbered_on_or_listed():
    env = population(TEACHERS)
    assert env.unwrapped.finished == (None, None, None)
    env.reset(seed=4)
    assert env.unwrapped.distillation.seeds.tolist() == [4, 5, 6]
    env.reset(seed=[10, 0, 20, 0, 30, 0])
    assert env.unwrapped.distillation.seeds.tolist() == [10, 20, 30]
    env.reset(seed=[10, None, None, 3, 30, None])
    drawn = env.unwrapped.distillation.seeds.tolist()
    assert drawn[::2] == [10, 30]
    env.reset(seed=[10, None, None, 3, 30, None])
    assert env.unwrapped.distillation.seeds.tolist() == drawn, "a seed that is left out follows from the first"
    with pytest.raises(InputError, match="seed: 3 seeds for 6 slots"):
        env.reset(seed=[1, 2, 3])


DO_NOT_DIVIDE = [
    ({"num_envs": 5}, "num_envs=5 slots are not num_students=3 whole mini-batches; use a multiple of num_students"),
    ({"num_envs": 6, "batch_size": 6}, "mini-batches of 2, but batch_size=6"),
    ({"num_envs": 6, "granularity": "batch"}, "num_envs=6: .* one slot per student; give num_envs=num_students"),
    ({"num_envs": 6, "name": KNOWLEDGE}, "num_envs=6: .* one slot per student; give num_envs=num_students"),
]


def test_slots_that_do_not_divide_are_refused():
    for keywords, message in DO_NOT_DIVIDE:
        with pytest.raises(InputError, match=message):
            slots(num_students=3, **keywords)


EVERY_MODE = [((name, ACTIONS_OF[name][number % len(ACTIONS_OF[name])]), mode) for name in CLASSES for number, mode in enumerate(MODES)]
"""Every environment in every mode; the kinds of action take turns."""


@pytest.mark.parametrize(("kind", "mode"), chosen(itertools.product(KINDS, MODES), EVERY_MODE))
def test_snapshots_and_forks_continue_alike(kind, mode):
    """After a student has begun again, so that all are at different updates of their own."""
    name, action = kind
    granularity = "batch" if name == KNOWLEDGE else "instance"
    options = {"autoreset_mode": mode, "action": action, "credit": "head", "updates": 8, "student": "mlp(width=8,dropout=0.2)"}
    options |= {"exploration_bonus": 0.5} if name == KNOWLEDGE else {}
    env, other = population(name, granularity, **options), population(name, granularity, **options)
    env.reset(seed=0)
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(6)]
    env.step(actions[0])
    broken(env.unwrapped.distillation, 1)
    env.step(actions[1])
    if mode == "disabled":
        env.reset(options={"reset_mask": np.repeat([False, True, False], env.num_envs // STUDENTS)})
    env.step(actions[2])
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    assert len(set(env.unwrapped.distillation.update.tolist())) == 2
    blocks = other.unwrapped.restore(state)
    steps = [env.step(action) for action in actions[3:]]
    assert same(steps, [twin.step(action) for action in actions[3:]])
    assert same(steps, [other.step(action) for action in actions[3:]])
    assert same(blocks, env.unwrapped.restore(state))
    assert same(steps, [env.step(action) for action in actions[3:]])
    assert np.isfinite(np.stack([step[1] for step in steps])).all()


def test_a_fork_keeps_who_has_ended():
    env = population(TEACHERS)
    env.reset(seed=0)
    broken(env.unwrapped.distillation, 0)
    actions = np.ones((STUDENTS * SIZE, 4), dtype=np.int8)
    env.step(actions)
    twin, other = env.unwrapped.fork(), population(TEACHERS)
    other.unwrapped.restore(env.unwrapped.snapshot())
    step = env.step(actions)
    assert same(step, twin.step(actions)), "the same seed is drawn"
    assert env.unwrapped.distillation.update.tolist() == [0, 2, 2]
    rewards = other.step(actions)[1]
    assert other.unwrapped.distillation.update.tolist() == [0, 2, 2]
    assert np.array_equal(rewards, step[1])
    assert twin.finished[0].diverged.tolist() == [True]


def test_gymnasium_s_defaults_make_one_student_for_a_whole_batch():
    env = gym.make_vec(KNOWLEDGE, updates=2, student="mlp(width=4)")
    assert (env.num_envs, env.unwrapped.num_students) == (1, 1)
    assert env.unwrapped.selection.settings.distillation.batch_size == 32
    assert env.unwrapped.finished is None
