"""Students of a population end and begin each at its own time, as in Gymnasium's own vector environment."""

import itertools

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pairwise import chosen
from playing import CLASSES, JOINT, KNOWLEDGE, MODES, TEACHERS, batch
from populations import FLOAT64, SIZE, STUDENTS, alone, broken, close, of_student, population

from kd_env.errors import InputError

ENDING = [*((name, "shared") for name in CLASSES), (JOINT, "head")]


@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "limit", "case"),
    chosen(
        itertools.product(MODES, [None, 3], ENDING),
        [
            *((mode, [None, 3][number % 2], ENDING[number]) for number, mode in enumerate(MODES)),
            *((mode, [3, None][number % 2], ENDING[3 - number]) for number, mode in enumerate(MODES)),
        ],
    ),
)
def test_students_end_and_begin_alone_as_in_gymnasium_s_own_vector_environment(mode, limit, case):
    """Student 1 diverges in its second update; flags, masks and keys are those of three environments, numbers too until a new student."""
    name, credit = case
    options = {"granularity": "batch", "max_episode_steps": limit, "credit": credit, "observe_labels": True, **FLOAT64}
    options |= {"action": "subset"} if name == TEACHERS else {}
    ours = population(name, autoreset_mode=mode, **options)
    theirs = SyncVectorEnv([lambda: batch(name, batch_size=SIZE, **options)] * STUDENTS, autoreset_mode=AutoresetMode[mode.upper()])
    ours.reset(seed=3)
    theirs.reset(seed=3)
    ours.action_space.seed(0)
    first_students, rewards, ends = np.ones(STUDENTS, dtype=np.bool_), [], 0
    for number in range(9):
        if number == 1:
            broken(ours.unwrapped.distillation, 1)
            broken(theirs.envs[1].unwrapped.distillation, 0)
        actions = ours.action_space.sample()
        step, reference = ours.step(actions), theirs.step(actions)
        done = step[2] | step[3]
        assert np.array_equal(step[2], reference[2])
        assert np.array_equal(step[3], reference[3])
        rewards.append(step[1])
        assert_alike(step, reference, first_students, first_students & ~done if mode == "same_step" else first_students)
        first_students &= ~done
        ends += done.sum()
        if mode == "disabled" and done.any():
            with pytest.raises(InputError, match=r"call reset\(\) first"):
                ours.step(actions)
            infos = [env.reset(options={"reset_mask": done.copy()})[1] for env in (ours, theirs)]
            assert infos[0].keys() == infos[1].keys()
            assert np.array_equal(infos[0]["_example_ids"], done)
            assert np.array_equal(infos[1]["_example_ids"], done)
    assert ends >= 6
    assert [row[1] for row in rewards].count(-10.0) == 1
    assert not (np.delete(np.array(rewards), 1, axis=1) == -10.0).any()


def assert_alike(step, reference, before, after):
    """Two vector environments return the same, by their masks.

    Numbers are compared of the students that are still the first ones ``before`` a reset within the step, and ``after`` it.
    """
    (blocks, rewards, *_, info), (other_blocks, other_rewards, *_, other_info) = step, reference
    assert all(close(block[after], other_blocks[name][after]) for name, block in blocks.items())
    assert close(rewards[before], other_rewards[before])
    assert ((rewards == 0) == (other_rewards == 0)).all(), "the reset step of NEXT_STEP pays nothing"
    assert_infos_alike(info, other_info, before, after)


def assert_infos_alike(info, other, before, after):
    assert info.keys() == other.keys()
    for name in (name for name in info if not name.startswith("_")):
        mask = info[f"_{name}"]
        assert np.array_equal(mask, other[f"_{name}"]), name
        if isinstance(info[name], dict):
            assert_infos_alike(info[name], other[name], before, before if name == "final_info" else after)
        elif name == "final_obs":
            assert [row is None for row in info[name]] == [row is None for row in other[name]] == (~mask).tolist()
            assert all(close(info[name][slot], other[name][slot]) for slot in np.flatnonzero(mask & before))
        else:
            assert close(info[name][mask & after], other[name][mask & after]), name


def with_final(blocks, info):
    """The observation, the last of an episode where one has ended."""
    final = info["final_obs"]
    return {name: np.stack([final[slot][name] if final[slot] else row for slot, row in enumerate(block)]) for name, block in blocks.items()}


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_a_student_begun_again_alone_is_a_student_begun_alone(mode):
    env = population(TEACHERS, autoreset_mode=mode, credit="first_order", action="weights", updates=6, **FLOAT64)
    undisturbed = population(TEACHERS, autoreset_mode=mode, credit="first_order", action="weights", updates=6, **FLOAT64)
    for each in (env, undisturbed):
        each.reset(seed=3)
        each.action_space.seed(0)
    own = slice(SIZE, 2 * SIZE)
    others = np.delete(np.arange(STUDENTS * SIZE), own)
    single = None
    for number in range(6):
        if number == 2:
            broken(env.unwrapped.distillation, 1)
        actions = env.action_space.sample()
        blocks, rewards, terminated, _, info = env.step(actions)
        expected = undisturbed.step(actions)
        if mode == "same_step" and number == 5:
            blocks, expected = with_final(blocks, info), (with_final(expected[0], expected[4]), *expected[1:])
        assert all(close(blocks[name][others], expected[0][name][others]) for name in blocks), "the others do not notice"
        assert close(rewards[others], expected[1][others], 1e-9)
        assert terminated[others].all() == (number == 5)
        if number == 2:
            assert terminated.reshape(STUDENTS, SIZE).tolist() == [[False] * SIZE, [True] * SIZE, [False] * SIZE]
            assert rewards[own].tolist() == [-10.0] * SIZE
            run = env.unwrapped.finished[1]
            assert (run.diverged.tolist(), run.update.tolist()) == ([True], [3])
            assert env.unwrapped.finished[0] is env.unwrapped.finished[2] is None
            if mode == "disabled":
                blocks, info = env.reset(options={"reset_mask": np.repeat([False, True, False], SIZE)})
                assert info["_example_ids"].tolist() == np.repeat([False, True, False], SIZE).tolist()
        elif single is not None:
            reference = single.step(actions[own])
            assert close({name: block[own] for name, block in blocks.items()}, reference[0])
            assert close(rewards[own], reference[1], 1e-9)
            assert close(info["credit"][own], reference[4]["credit"], 1e-9)
            assert np.array_equal(info["example_ids"][own], reference[4]["example_ids"])
        if single is None and number >= 2 and (mode != "next_step" or number == 3):
            single = alone(TEACHERS, credit="first_order", action="weights", updates=6, **FLOAT64)
            first, _ = single.reset(seed=int(env.unwrapped.distillation.seeds[1]))
            assert close({name: block[own] for name, block in blocks.items()}, first)
            assert (env.unwrapped.distillation.update[1], env.unwrapped.distillation.seeds[1] == 4) == (0, False)
            assert not rewards[own].any() or mode != "next_step"


def test_a_student_begun_again_has_its_own_learning_rate_and_measurements():
    keywords = {"credit": "first_order", "normalize_credit": False, "action": "weights", "updates": 6, "validation_every": 2, **FLOAT64}
    keywords["optimizer"] = "adam(lr=0.01,decay=linear)"
    env, single = population(TEACHERS, autoreset_mode="disabled", **keywords), alone(TEACHERS, **keywords)
    env.reset(seed=3)
    env.action_space.seed(0)
    own = slice(SIZE, 2 * SIZE)
    env.step(env.action_space.sample())
    env.reset(options={"reset_mask": np.repeat([False, True, False], SIZE)})
    single.reset(seed=int(env.unwrapped.distillation.seeds[1]))
    due = []
    for _ in range(5):  # student 1 is one update behind the others
        actions = env.action_space.sample()
        info, reference = env.step(actions)[4], single.step(actions[own])[4]
        assert close(info["credit"][own], reference["credit"], 1e-9)
        shown = info.get("_validation", np.zeros(STUDENTS * SIZE, dtype=np.bool_)).reshape(STUDENTS, SIZE)
        assert shown[1].all() == ("validation" in reference)
        due.append(shown.all(1).tolist())
    assert due == [[True, False, True], [False, True, False], [True, False, True], [False, True, False], [True, False, True]]


@pytest.mark.long
def test_one_divergence_within_a_phase_is_paid_once_and_ends_its_student_alone():
    options = {
        "updates": 6,
        "updates_per_phase": 3,
        "exploration_bonus": 1.0,
        "credit": "first_order",
        "kd_weight": 0.6,
        "validation_every": 6,
        "teacher_cost": 0.1,
    }
    env, reference = (population(KNOWLEDGE, "batch", **options) for _ in range(2))
    for each in (env, reference):
        each.reset(seed=0)
    gates = np.array([[0.2, 0.1, 0.3, 0.4]] * STUDENTS, dtype=np.float32)
    update, calls = env.unwrapped.distillation.apply, []

    def breaks_between(*arguments):
        outcome = update(*arguments)
        calls.append(arguments)
        if len(calls) == 1:
            broken(env.unwrapped.distillation, 1)
        return outcome

    env.unwrapped.distillation.apply = breaks_between
    blocks, rewards, terminated, _, info = env.step(gates)
    _, expected, *_ = reference.step(gates)
    assert len(calls) == 3
    assert terminated.tolist() == [False, True, False]
    assert np.array_equal(rewards[[0, 2]], expected[[0, 2]])
    assert rewards[1] == -10.0, "whatever the updates before it and the bonus pay"
    assert env.unwrapped.distillation.update.tolist() == [3, 2, 3]
    assert env.unwrapped.finished[1].update.tolist() == [2]
    assert np.isfinite(info["credit"]).all()
    assert not info["credit"][1].any()
    assert info["reward_terms"]["teacher_calls"].tolist() == [12, 8, 12], "four teachers in each mini-batch it was taught"
    assert env.observation_space.contains(blocks)


@pytest.mark.long
def test_masks_of_resets_cover_whole_students():
    env, reference = (population(TEACHERS, autoreset_mode="disabled", **FLOAT64) for _ in range(2))
    actions = np.eye(STUDENTS * SIZE, 4, dtype=np.int8)
    for each in (env, reference):
        each.reset(seed=3)
        each.step(actions)
    for mask in ([True, True, True, False, False, False], [False, True, False, False, False, False], [True, False, True]):
        with pytest.raises(InputError, match="expected 6 booleans, equal for the slots of one student, which reset together"):
            env.reset(options={"reset_mask": np.array(mask)})
    mask = np.repeat([True, False, True], SIZE)
    blocks, info = env.reset(seed=9, options={"reset_mask": mask})
    assert (info["_example_ids"] == mask).all()
    assert env.unwrapped.distillation.seeds.tolist() == [9, 4, 11]
    assert env.unwrapped.distillation.update.tolist() == [0, 1, 0]
    first = alone(TEACHERS, **FLOAT64).reset(seed=11)[0]
    assert close({name: block[4:] for name, block in blocks.items()}, first)
    step, expected = env.step(actions), reference.step(actions)
    assert close(of_student(step[0], 1), of_student(expected[0], 1))
    assert close(step[1][2:4], expected[1][2:4], 1e-9)
    before = env.unwrapped.snapshot()
    env.reset(options={"reset_mask": np.zeros(6, dtype=np.bool_)})
    assert env.unwrapped.snapshot() == before


def test_students_that_are_cut_off_are_kept_each_at_its_own_time():
    env = population(TEACHERS, max_episode_steps=2, updates=6)
    env.reset(seed=0)
    broken(env.unwrapped.distillation, 2)
    actions, ends = np.ones((STUDENTS * SIZE, 4), dtype=np.int8), []
    for _ in range(6):
        *_, terminated, truncated, _ = env.step(actions)
        ends.append((terminated | truncated).reshape(STUDENTS, SIZE)[:, 0].tolist())
        assert not terminated[: 2 * SIZE].any()
    assert ends == [
        [False, False, True],  # diverged
        [True, True, False],  # cut; the other begins anew
        [False, False, False],
        [False, False, True],
        [True, True, False],
        [False, False, False],
    ]
    assert [run.update.tolist() for run in env.unwrapped.finished] == [[2], [2], [2]]
    assert [run.diverged.tolist() for run in env.unwrapped.finished] == [[False], [False], [False]]
