"""The bonus for exploring knowledge, by hand, and what is remembered of each student."""

import numpy as np
import pytest
from playing import JOINT, KNOWLEDGE, TEACHERS, batch, slots

from kd_env.envs.exploration import ExplorationBonus, hard_bonus, soft_bonus
from kd_env.errors import InputError
from kd_env.types import DecodedAction


def test_the_bonus_for_soft_actions_by_hand():
    """One minus the cosine to the phase before; an action of zeros is like none."""
    gates = np.array([[1.0, 0.0], [0.5, 0.5], [0.6, 0.8], [0.0, 0.0], [0.3, 0.4]])
    previous = np.array([[0.0, 0.2], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(soft_bonus(gates, previous), [1.0, 0.0, 0.4, 1.0, 1.0], atol=1e-12)


def test_the_bonus_for_hard_actions_by_hand():
    assert hard_bonus(np.array([1, 4, 2])).tolist() == [1.0, 0.5, pytest.approx(2**-0.5)]


def decoded(*gates):
    return DecodedAction(np.full((len(gates), 2), 0.5, dtype=np.float32), gates=np.array(gates, dtype=np.float32))


def test_no_weight_pays_and_remembers_nothing():
    bonus = ExplorationBonus(0.0, 2, hard=False)
    assert bonus.pay(decoded([1, 0], [0, 1])) is None
    assert bonus.memory == [{}, {}]


@pytest.mark.parametrize("hard", [False, True])
def test_each_student_has_its_own_memory_until_it_begins_again(hard):
    bonus = ExplorationBonus(2.0, 2, hard)
    assert bonus.pay(decoded([1, 0], [0, 1])).tolist() == [2.0, 2.0]
    memory = [dict(student) for student in bonus.memory]
    bonus.reset_student(1)
    assert bonus.memory == [memory[0], {}]
    known, new = bonus.pay(decoded([1, 0], [0, 1])).tolist()
    assert known == pytest.approx(2.0 * 2**-0.5 if hard else 0.0, abs=1e-12)
    assert new == 2.0


# In an environment


def bonus_of(step):
    """What an exploration bonus of .5 added to the last step's reward."""
    *_, reward, _, _, info = step
    assert reward == pytest.approx(info["reward_terms"]["improvement"] + info["reward_terms"]["exploration"])
    return info["reward_terms"]["exploration"] / 0.5


@pytest.fixture
def make(untrained):
    setting = {"student": "mlp(width=6,depth=2)", "batch_size": 4, "kd_weight": 0.3, "precision": "float64", "temperature": 3.0}

    def environment(**keywords):
        return batch(KNOWLEDGE, exploration_bonus=0.5, **{**setting, **untrained("image", 2), **keywords})

    return environment


@pytest.mark.parametrize("phase", [1, 2])
def test_soft_actions_are_paid_for_turning_away_from_the_phase_before(make, phase):
    env = make(updates=8, updates_per_phase=phase, student="mlp(width=4)")
    env.reset(seed=0)
    first, second, opposite = [1.0, -1.0, -1.0, -1.0], [0.2, 0.6, -1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]
    expected = [1.0, 0.0, 1 - 0.6, 1.0]  # gates (1, 0, 0, 0), then (.6, .8, 0, 0)
    bonuses = [bonus_of(env.step(np.float32(action))) for action in (first, first, second, opposite)]
    assert bonuses == pytest.approx(expected, abs=1e-6)
    env.reset(seed=0)
    assert bonus_of(env.step(np.float32(opposite))) == 1.0, "nothing is remembered after a reset"


@pytest.mark.parametrize("phase", [1, 2])
def test_hard_actions_are_paid_for_being_rare(make, phase):
    env = make(action="hard", updates=10, updates_per_phase=phase)
    env.reset(seed=0)
    first, second = [1, 0, 0, 1], [1, 0, 1, 1]
    bonuses = [bonus_of(env.step(np.array(action))) for action in (first, second, first, first, second)]
    assert bonuses == pytest.approx([1.0, 1.0, 2**-0.5, 3**-0.5, 2**-0.5])
    env.reset(seed=0)
    assert bonus_of(env.step(np.array(first))) == 1.0


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_a_snapshot_and_a_fork_remember_the_gates(make, action):
    env, other = (make(action=action, updates=6) for _ in range(2))
    env.reset(seed=0)
    first, second = (np.array(a, dtype=env.action_space.dtype) for a in ([1, 0, 0, 0], [0, 0, 1, 1]))
    env.step(first)
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    expected = [bonus_of(env.step(gates)) for gates in (first, second, first)]
    assert [bonus_of(twin.step(gates)) for gates in (first, second, first)] == expected
    other.reset(seed=3)
    other.unwrapped.restore(state)
    assert [bonus_of(other.step(gates)) for gates in (first, second, first)] == expected
    assert expected[0] == (pytest.approx(2**-0.5) if action == "hard" else pytest.approx(0.0, abs=1e-6))
    assert bonus_of(twin.step(second)) == bonus_of(env.step(second)), "each remembers its own from here on"


@pytest.mark.parametrize("action", ["soft", "hard"])
def test_each_student_of_a_population_is_paid_for_its_own_gates(action):
    options = {"exploration_bonus": 0.5, "updates": 6, "kd_weight": 0.5, "autoreset_mode": "disabled"}
    env = slots(3, KNOWLEDGE, num_students=3, batch_size=2, action=action, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = np.array([env.action_space.sample() for _ in range(3)])
    actions[1, 0], actions[2, :] = actions[0, 0], actions[1, :]
    gates = actions if action == "hard" else (actions + 1) / 2
    bonuses = np.array([env.step(phase)[4]["reward_terms"]["exploration"] for phase in actions]) / 0.5
    for student in range(3):
        for phase in range(3):
            if action == "hard":
                times = sum(np.array_equal(gates[phase, student], gates[past, student]) for past in range(phase + 1))
                expected = hard_bonus(np.array([times]))
            else:
                previous = gates[phase - 1, student] if phase else np.zeros(4)
                expected = soft_bonus(gates[phase, student][None], previous[None])
            assert bonuses[phase, student] == pytest.approx(expected[0], abs=1e-6)
    assert len({tuple(column) for column in bonuses.T.round(6)}) > 1
    env.reset(options={"reset_mask": np.array([False, True, False])})
    after = env.step(actions[2])[4]["reward_terms"]["exploration"] / 0.5
    assert after[1] == 1.0, "a student begun again remembers nothing"
    assert (after[[0, 2]] < 0.8).all(), "the others do"


@pytest.mark.parametrize("name", [TEACHERS, JOINT])
def test_there_is_no_bonus_where_knowledge_is_not_selected(name):
    with pytest.raises(InputError, match=r"exploration_bonus=0.1: it is paid for knowledge selection alone; leave it out"):
        batch(name, exploration_bonus=0.1)
