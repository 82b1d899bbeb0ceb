"""The bandits on a three-armed one whose answer is known, and by hand."""

import math

import numpy as np
import pytest
from three_arms import BANDITS, MEANS, NOTHING, Arms, play

from agents.bandit import RecentRange
from agents.exp3 import EXP3
from agents.linucb import LinUCB
from agents.sliding_ucb import SlidingUCB

# Proved on a tiny bandit


@pytest.mark.parametrize("kind", BANDITS)
def test_regret_is_clearly_below_random(kind):
    lost = [play(kind, 600, seed)[0].lost for seed in range(4)]
    random = 600 * (max(MEANS) - np.mean(MEANS))  # 6
    assert max(lost) < 0.5 * random, lost


@pytest.mark.parametrize("kind", BANDITS)
def test_the_best_arm_is_pulled_most_in_the_end(kind):
    for seed in range(3):
        env, _ = play(kind, 600, seed)
        assert np.mean(np.array(env.pulled[-200:]) == 1) > 0.5


def test_linucb_uses_what_it_sees():
    """The best arm is another at every pull; only the context says which."""
    for seed in range(3):
        env, _ = play(LinUCB, 400, seed, seen=True)
        blind, _ = play(SlidingUCB, 400, seed, seen=True)
        assert env.lost < 0.5 * blind.lost
        assert env.lost < 0.5 * 400 * 0.01


def test_a_window_forgets_a_change_that_plain_averaging_does_not():
    """All arms in turn, 200 times, then 40 times with the rewards of the first two exchanged."""
    recent, plain = (SlidingUCB(Arms(0), window=window) for window in (60, 10_000))
    for agent in (recent, plain):
        for pull in range(720):
            before = pull < 600
            agent.learn_from(pull % 3, ((0.2, 0.9, 0.1) if before else (0.9, 0.2, 0.1))[pull % 3], NOTHING)
            if pull == 599:
                assert agent.choose(NOTHING) == 1
    assert recent.choose(NOTHING) == 0
    # means of 240 pulls: (200 * .2 + 40 * .9) / 240 = .3167 and (200 * .9 + 40 * .2) / 240 = .7833; bounds alike
    bound = math.sqrt(0.6 * math.log(720) / 240)
    assert plain.scores().tolist() == pytest.approx([76 / 240 + bound, 188 / 240 + bound, 0.1 + bound])
    assert plain.choose(NOTHING) == 1


# By hand


def test_exp3_explores_with_its_share():
    agent = EXP3(Arms(0), gamma=0.3)
    assert agent.probabilities.tolist() == pytest.approx([1 / 3] * 3)
    agent.log_weights = np.log([2.0, 1.0, 1.0])
    # .7 w / 4 + .3 / 3
    assert agent.probabilities.tolist() == pytest.approx([0.45, 0.275, 0.275])
    agent.learn_from(1, 0.5, NOTHING)
    # w_1 <- 1 exp(.3 * .5 / (.275 * 3)) = exp(.1818...)
    assert agent.log_weights.tolist() == pytest.approx([math.log(2.0), 0.15 / 0.825, 0.0])
    drawn = np.bincount([agent.choose(NOTHING) for _ in range(4000)], minlength=3) / 4000
    assert drawn == pytest.approx(agent.probabilities, abs=0.03)


def test_exp3_of_huge_weights_is_finite():
    agent = EXP3(Arms(0), gamma=0.3)
    agent.log_weights = np.array([5000.0, 0.0, -5000.0])
    assert agent.probabilities.tolist() == pytest.approx([0.8, 0.1, 0.1])


def test_linucb_by_hand():
    agent = LinUCB(Arms(0), alpha=0.5)
    seen = {"progress": np.array([[2.0]], dtype=np.float32)}
    # x = (2, 1) of every arm, A = I: 0 + .5 sqrt(5)
    assert agent.scores(seen).tolist() == pytest.approx([0.5 * math.sqrt(5)] * 3)
    agent.learn_from(1, 0.6, seen)
    # A_1 = I + x x^T, A_1^-1 x = x / (1 + 5): theta . x = .6 * 5 / 6, x . A^-1 x = 5 / 6
    assert agent.scores(seen).tolist() == pytest.approx([0.5 * math.sqrt(5), 0.5 + 0.5 * math.sqrt(5 / 6), 0.5 * math.sqrt(5)])
    agent = LinUCB(Arms(0), alpha=0.5, ridge=4.0)
    assert agent.scores(seen)[0] == pytest.approx(0.5 * math.sqrt(5 / 4))


def test_linucb_gives_each_arm_its_own_columns():
    agent = LinUCB(Arms(0, seen=True))
    seen = {"teachers": np.array([[7.0, 8.0, 9.0]], dtype=np.float32), "progress": np.array([[2.0]], dtype=np.float32)}
    assert agent.contexts(seen).tolist() == [[7, 2, 1], [8, 2, 1], [9, 2, 1]]


def test_sliding_ucb_by_hand():
    agent = SlidingUCB(Arms(0), window=4, xi=0.6)
    for arm in range(3):
        assert agent.choose(NOTHING) == arm, "each arm once"
        agent.learn_from(arm, (0.5, 0.9, 0.1)[arm], NOTHING)
    agent.learn_from(1, 0.7, NOTHING)
    bound = 0.6 * math.log(4)
    assert agent.scores().tolist() == pytest.approx([0.5 + math.sqrt(bound), 0.8 + math.sqrt(bound / 2), 0.1 + math.sqrt(bound)])
    agent.learn_from(1, 0.7, NOTHING)  # the pull of arm 0 falls out of the window
    assert agent.scores()[0] == math.inf
    assert agent.scores()[1] == pytest.approx((0.9 + 0.7 + 0.7) / 3 + math.sqrt(bound / 3))


def test_rewards_of_any_scale_come_into_the_unit_interval():
    for scale in (1e-6, 1.0, 1e6):
        recent = RecentRange(11)
        scaled = [recent.scaled(scale * value) for value in range(11)]
        # percentiles of 0..10: 1 and 9; the last, 10, is clipped
        assert scaled[0] == 0.5
        assert scaled[-1] == 1.0
        assert recent.scaled(scale * 4.2) == pytest.approx((4.2 - 2) / (9 - 2))  # of 1..10 and 4.2
    recent = RecentRange(100)
    for value in range(50):
        recent.scaled(value / 49)
    assert recent.scaled(-10.0) == 0.0
    assert 0.4 < recent.scaled(0.5) < 0.6, "a student that diverged does not squeeze the others together"


def test_what_was_paid_is_credited_to_the_arm_that_was_pulled():
    env, agent = play(SlidingUCB, 50)
    assert [arm for arm, _ in agent.pulls] == env.pulled


@pytest.mark.parametrize("kind", BANDITS)
def test_a_loaded_state_replaces_what_was_learned_and_shares_nothing(kind):
    _, agent = play(kind, 50, 0)
    _, used = play(kind, 80, 1)
    state = agent.state()
    before = repr(state)
    used.load_state(state)
    assert repr(used.state()) == before
    used.learn_from(0, 1.0, NOTHING)
    assert repr(state) == before
    agent.learn_from(0, 1.0, NOTHING)
    assert repr(state) == before
