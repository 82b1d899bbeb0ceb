"""The bandits on a three-armed one whose answer is known, and as policies over teachers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from agents.bandit import RecentRange
from agents.exp3 import EXP3
from agents.linucb import LinUCB
from agents.sliding_ucb import SlidingUCB
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import make_policy, run_episode
from kd_env.testing import check_policy

BANDITS = [EXP3, LinUCB, SlidingUCB]
MEANS = (0.02, 0.03, 0.01)  # arm 1 is the best; random play loses .01 a pull
NOTHING = {"progress": np.zeros((1, 1), dtype=np.float32)}


class Arms:
    """Three arms that pay small noisy rewards: environment and policy context in one.

    With ``seen`` their means are drawn anew at each pull and the observation shows them.
    """

    num_envs = 1
    single_action_space = spaces.Discrete(3)

    def __init__(self, seed, seen=False, pulls=600):
        self.rng, self.seen, self.pulled, self.lost = np.random.default_rng(100 + seed), seen, [], 0.0
        self.pulls = pulls
        self.columns = {"teachers": 3, "progress": 1} if seen else {"progress": 1}

    def observation(self):
        self.means = np.array(MEANS)
        if not self.seen:
            return NOTHING
        self.means = self.rng.permutation(MEANS)
        return {"teachers": (50 * self.means[None]).astype(np.float32), **NOTHING}

    def reset(self, *, seed=None, options=None):
        return self.observation(), {}

    def step(self, actions):
        (arm,) = actions
        paid = self.means[arm] + 0.01 * self.rng.standard_normal()
        self.pulled.append(int(arm))
        self.lost += self.means.max() - self.means[arm]
        return self.observation(), np.array([paid]), np.array([len(self.pulled) == self.pulls]), np.array([False]), {}


def play(kind, pulls=600, seed=0, seen=False, **options):
    env = Arms(seed, seen, pulls)
    agent = kind(env, seed, **options)
    run_episode(env, agent, seed)
    return env, agent


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
            agent.credit(pull % 3, ((0.2, 0.9, 0.1) if before else (0.9, 0.2, 0.1))[pull % 3], NOTHING)
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
    agent.credit(1, 0.5, NOTHING)
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
    agent.credit(1, 0.6, seen)
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
        agent.credit(arm, (0.5, 0.9, 0.1)[arm], NOTHING)
    agent.credit(1, 0.7, NOTHING)
    bound = 0.6 * math.log(4)
    assert agent.scores().tolist() == pytest.approx([0.5 + math.sqrt(bound), 0.8 + math.sqrt(bound / 2), 0.1 + math.sqrt(bound)])
    agent.credit(1, 0.7, NOTHING)  # the pull of arm 0 falls out of the window
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


# As policies


@pytest.mark.parametrize("kind", BANDITS)
def test_the_seed_decides(kind):
    first, same, other = (play(kind, 200, seed)[0].pulled for seed in (3, 3, 4))
    assert first == same
    assert first != other


@pytest.mark.parametrize("kind", BANDITS)
def test_what_was_learned_is_saved(kind, tmp_path):
    env, agent = play(kind, 120, 1, memory=40)
    agent.save(str(tmp_path / "bandit"))
    again = kind.load(str(tmp_path / "bandit"), env)
    assert again.options == agent.options
    assert list(again.range.recent) == list(agent.range.recent)
    assert len(again.range.recent) == 40
    for name, value in agent.learned().items():
        assert np.array_equal(again.learned()[name], value), name
    fresh = kind(env, 1).learned()
    assert not any(np.array_equal(fresh[name], value) for name, value in again.learned().items()), "it had learned something"


@pytest.mark.parametrize("kind", BANDITS)
def test_it_keeps_to_the_protocol(kind):
    check_policy(kind)
    assert kind.access == "reward scalar"
    assert kind.paper


@pytest.mark.parametrize("name", ["exp3", "linucb", "sliding_ucb"])
def test_it_teaches_text(name, tmp_path):
    task = "domains(train=160,reward=48,validation=32,test=16)"
    settings = {"updates": 6, "student": "tiny-bert(width=8,layers=1)", "batch_size": 8}
    record = run_trial(Trial(task, name, 0, "domains/experts", settings=settings), tmp_path)
    assert record["access"] == "reward scalar"
    assert sum(record["selection_rate"]) == pytest.approx(1.0)
    assert record["weight_entropy"] == 0.0, "one teacher per mini-batch"
    if name == "exp3":
        assert 0.9 < record["selection_entropy"] <= 1.0, "after six pulls it is nearly undecided"
    else:
        assert record["selection_entropy"] is None, "it chooses the largest upper bound, with certainty"


@pytest.mark.parametrize("name", ["exp3", "linucb", "sliding_ucb"])
def test_students_of_a_population_are_taught_as_alone(name, tmp_path):
    trials = [Trial("digits", name, seed, settings={"updates": 10, "precision": "float64"}) for seed in (0, 4)]
    together = run_trials(trials, tmp_path / "together", lambda _: None)
    for trial, record in zip(trials, together, strict=True):
        alone = run_trial(trial, tmp_path / "alone")
        assert record["selection_rate"] == alone["selection_rate"]
        assert record["reward_sum"] == pytest.approx(alone["reward_sum"], rel=1e-6)


def test_a_phase_is_one_decision(tmp_path):
    env = make_env(Trial("digits", "sliding_ucb", 0, settings={"updates": 20, "updates_per_phase": 5}))
    agent = make_policy(SlidingUCB, env, 0)
    run_episode(env, agent, 0)
    assert len(agent.pulls) == 4
    assert env.finished.update.tolist() == [20]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda env: EXP3(env, gamma=0.0), r"exp3\(gamma=0.0\): expected a number above 0, at most 1"),
        (lambda env: EXP3(env, gamma=1.5), r"exp3\(gamma=1.5\)"),
        (lambda env: LinUCB(env, alpha=-1), r"linucb\(alpha=-1\): expected a number of at least 0"),
        (lambda env: LinUCB(env, ridge=0), r"linucb\(ridge=0\): expected a number above 0"),
        (lambda env: SlidingUCB(env, window=2), r"sliding_ucb\(window=2\): expected a whole number of at least 3"),
        (lambda env: SlidingUCB(env, xi="much"), r"sliding_ucb\(xi='much'\)"),
        (lambda env: SlidingUCB(env, memory=1), r"SlidingUCB\(memory=1\): expected a whole number of at least 2"),
        (lambda env: EXP3(SimpleNamespace(num_envs=32, single_action_space=spaces.Discrete(3))), "32 slots of .*granularity=batch"),
        (lambda env: EXP3(SimpleNamespace(num_envs=1, single_action_space=spaces.MultiBinary(3))), "action=one"),
    ],
)
def test_what_cannot_be_used_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build(Arms(0))
