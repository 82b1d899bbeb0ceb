"""The loop: short, the same for every policy, and what it tells a policy."""

import ast
import inspect
import textwrap

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import kd_env.envs  # noqa: F401  (registers the environments)
from kd_env.benchmark.run_trial import EPISODE_SEEDS, make_env, teach
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import Transition, make_policy, run_episode, run_population_episode
from kd_env.testing import check_policy
from kd_env.types import Decision

MAKE = {"vectorization_mode": "vector_entry_point", "task": "digits", "updates": 5, "student": "mlp(width=8)"}


def make(num_envs=8, **options):
    return gym.make_vec("kd_env/TeacherSelection-v0", num_envs=num_envs, **MAKE, **options)


class OnlyActs:
    """The least that a policy can be."""

    def act(self, observation):
        return np.ones((len(observation["progress"]), 4), dtype=np.int8)


class Notes(OnlyActs):
    """Writes down what it is told."""

    def __init__(self, training_episodes=0):
        self.episodes, self.seen, self.told, self.training_episodes = [], [], [], training_episodes

    def begin_episode(self, learning):
        self.episodes.append(learning)

    def act(self, observation):
        self.seen.append(observation)
        return super().act(observation)

    def update(self, transition):
        self.told.append(transition)


def test_the_loop_is_short():
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(run_episode))).body
    body = function.body[1:]  # without the docstring
    assert body[-1].end_lineno - body[0].lineno + 1 <= 15


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_a_class_that_only_acts_teaches_a_student_to_the_end(mode):
    env = make(autoreset_mode=mode)
    run_episode(env, OnlyActs(), seed=4)
    assert env.unwrapped.finished.update.tolist() == [5]
    assert env.unwrapped.finished.seeds.tolist() == [4]


def test_it_is_the_plain_gymnasium_loop():
    env, other = make(), make()
    run_episode(env, OnlyActs(), seed=2)
    other.reset(seed=2)
    for _ in range(5):
        other.step(np.ones((8, 4), dtype=np.int8))
    students = (each.unwrapped.finished.student.network.parameters() for each in (env, other))
    assert all(torch.equal(*pair) for pair in zip(*students, strict=True))


def test_a_learner_is_told_every_step():
    env, policy = make(credit="first_order"), Notes()
    rewards = []
    env.unwrapped.selection.listeners.append(lambda step: rewards.append(step.rewards.copy()))
    run_episode(env, policy, seed=0)
    assert len(policy.told) == len(policy.seen) == 5
    for step, transition in enumerate(policy.told):
        assert isinstance(transition, Transition)
        assert transition.observation is policy.seen[step]
        assert transition.action.shape == (8, 4)
        assert np.array_equal(transition.reward, rewards[step])
        assert transition.terminated.tolist() == [step == 4] * 8
        if step < 4:
            assert transition.next_observation is policy.seen[step + 1]
            assert transition.info["credit"].shape == (8, 4)


def test_a_policy_that_may_not_learn_is_told_nothing():
    policy = Notes()
    run_episode(make(), policy, seed=0, learning=False)
    assert (policy.episodes, policy.told, len(policy.seen)) == ([False], [], 5)


@pytest.mark.parametrize(("episodes", "learning"), [(0, [True]), (1, [True, False]), (3, [True, True, True, False])])
def test_training_episodes_come_before_the_student_that_counts(episodes, learning):
    env, policy, seeds = make().unwrapped, Notes(episodes), []
    reset = env.reset
    env.reset = lambda seed: (seeds.append(seed), reset(seed=seed))[1]
    teach(env, [policy], [7])
    assert policy.episodes == learning
    assert len(policy.told) == 5 * max(episodes, 1), "the last one teaches nothing, unless it is the only one"
    assert seeds == [7 + EPISODE_SEEDS * episode for episode in range(episodes, -1, -1)]
    assert env.finished.seeds.tolist() == [7]


def test_policies_of_a_population_are_told_of_their_own_student():
    env = make(num_envs=24, num_students=3, autoreset_mode="same_step", credit="first_order")
    policies = [Notes() for _ in range(3)]
    run_population_episode(env, policies, [5, 1, 9])
    for policy, seed in zip(policies, (5, 1, 9), strict=True):
        alone, note = make(autoreset_mode="same_step", credit="first_order"), Notes()
        run_episode(alone, note, seed)
        assert policy.episodes == [True]
        assert len(policy.told) == 5
        for transition, of_lone in zip(policy.told, note.told, strict=True):
            for name, block in of_lone.observation.items():
                np.testing.assert_allclose(transition.observation[name], block, atol=2e-4)
            assert transition.reward.shape == transition.terminated.shape == (8,)
            assert np.array_equal(transition.terminated, of_lone.terminated)
            assert transition.action.shape == (8, 4)
        assert policy.told[0].info["credit"].shape == (8, 4)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (np.s_[:], "action 'subset' gives the selected teachers equal weights"),
        (np.s_[:, 0], r"decide\(\) returned weights of shape \(8,\); return one row per slot, \[rows, K\]"),
    ],
)
def test_a_rule_whose_weights_cannot_be_used_is_named(part, message):
    class Unequal:
        access = "teacher outputs"

        def __init__(self, context, seed=0):
            pass

        def decide(self, batch):
            return batch.teacher_logits.softmax(2).amax(2)[part]

    env = make()
    policy = make_policy(Unequal, env)
    observation, _ = env.reset(seed=0)
    with pytest.raises(InputError, match=f"policy 'Unequal': {message}"):
        policy.act(observation)


def test_a_rule_without_a_base_class_is_a_policy():
    class Largest:
        access = "teacher outputs"
        env_options = {"action": "one"}

        def __init__(self, context, seed=0):
            pass

        def decide(self, batch):
            return batch.teacher_logits.softmax(2).amax(2)

    env = make(**Largest.env_options)
    policy = make_policy(Largest, env)
    observation, _ = env.reset(seed=0)
    largest = env.unwrapped.distillation.observe().teacher_logits.softmax(2).amax(2).argmax(1)
    assert policy.act(observation).tolist() == largest.tolist()
    run_episode(env, policy, seed=0)
    check_policy(Largest)


def test_weights_of_another_length_are_named():
    class Short:
        env_options = {"action": "weights"}

        def __init__(self, context, seed=0):
            pass

        def decide(self, batch):
            return torch.full((3, 4), 0.25)

    env = make(action="weights")
    with pytest.raises(InputError, match=r"policy 'Short': decide\(\) returned weights for 3 slots, expected 8"):
        run_episode(env, make_policy(Short, env), seed=0)


class Bins:
    """A learner for the README: a table of preferences, one row per bin of the surest teacher's confidence."""

    env_options = {"action": "one"}

    def __init__(self, context, seed=0, bins=4, learning_rate=0.5):
        assert isinstance(context.single_action_space, spaces.Discrete)
        assert set(context.single_observation_space) == {"instance", "teachers", "student", "progress"}
        self.teachers = int(context.single_action_space.n)
        self.columns = context.single_observation_space["teachers"].shape[0] // self.teachers
        self.rng, self.bins, self.learning_rate = np.random.default_rng(seed), bins, learning_rate
        self.table = np.zeros((bins, self.teachers))

    def rows(self, observation):
        surest = observation["teachers"].reshape(-1, self.teachers, self.columns)[:, :, 0].max(1)  # [B]
        return np.clip((surest * self.bins).astype(int), 0, self.bins - 1)

    def act(self, observation):
        odds = np.exp(self.table[self.rows(observation)])
        return np.array([self.rng.choice(self.teachers, p=row / row.sum()) for row in odds])

    def update(self, transition):
        np.add.at(self.table, (self.rows(transition.observation), transition.action), self.learning_rate * transition.reward)


def test_a_class_of_twenty_lines_learns():
    check_policy(Bins)
    env = make_env(Trial("digits", f"{__name__}:Bins", 0, settings={"updates": 30}))
    policy = make_policy(Bins, env, seed=0, bins=3)
    run_episode(env, policy, seed=0)
    assert policy.table.shape == (3, 4)
    assert np.abs(policy.table).max() > 0


def test_the_spaces_of_a_context_are_its_own():
    """A library that seeds a space and draws from it does not change what other policies draw."""
    env = make(num_envs=16, num_students=2)
    contexts = [make_policy(Keeps, env, seed).context for seed in (0, 1)]
    contexts[0].single_action_space.seed(3)
    before = contexts[1].single_action_space.np_random.bit_generator.state
    contexts[0].single_action_space.sample()
    assert contexts[1].single_action_space.np_random.bit_generator.state == before
    assert contexts[0].single_action_space == contexts[1].single_action_space == env.single_action_space


class Keeps(OnlyActs):
    def __init__(self, context, seed=0):
        self.context = context


def test_a_spent_decision_carries_no_gradient():
    weights = torch.full((2, 3), 1 / 3, requires_grad=True)
    decision = Decision({"response": weights * 1.0}, {"response": weights.sum(), "label": 0.5}, 2.0, weights.sum(1))
    spent = decision.detach()
    assert decision.differentiable
    assert not spent.differentiable
    assert torch.equal(spent.weights["response"], weights)
    assert (spent.strengths["label"], spent.temperature) == (0.5, 2.0)
    assert torch.equal(spent.penalty, weights.sum(1))
