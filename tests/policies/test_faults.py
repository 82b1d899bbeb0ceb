"""What a policy of the user's own raises arrives as one line with its text, file and line; faults of this project keep their traceback."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import teach
from kd_env.errors import InputError
from kd_env.policies import make_policy, run_episode
from kd_env.policies.faults import faults_of
from kd_env.policies.optional_methods import learned_by, selection_entropy_of
from kd_env.policies.registry import declared


def make(**keywords):
    return gym.make_vec(
        "kd_env/TeacherSelection-v0", num_envs=8, vectorization_mode="vector_entry_point", task="digits", updates=3, **keywords
    ).unwrapped


@pytest.fixture(scope="module")
def env():
    return make()


class Uniform:
    def act(self, observation):
        return np.ones((8, 4))


class DividesInAct:
    def act(self, observation):
        raise ZeroDivisionError("mine")


class ExitsInAct:
    def act(self, observation):
        sys.exit(0)


class FailsInUpdate(Uniform):
    def update(self, transition):
        return np.zeros(3) @ np.zeros(4)  # raised by a library, in a line of this file


class FailsInBegin(Uniform):
    def begin_episode(self, learning):
        raise KeyError("gone")


class Learns(Uniform):
    def learn(self, env, num_updates):
        raise SystemExit("enough")


class Summarised(Uniform):
    def learned_summary(self):
        return {"x": [np.float32(0.5), object()]}


class Plain(Uniform):
    def learned_summary(self):
        return {"x": np.arange(2), "y": (1.0, float("nan"), None)}


def test_a_summary_that_is_no_json_is_named():
    with pytest.raises(
        InputError, match=r"policy 'Summarised': learned_summary\(\) cannot be written as JSON \(Object of type object .*\); return dicts"
    ):
        learned_by(Summarised())
    assert learned_by(Plain()).keys() == {"learned"}
    assert learned_by(Uniform()) == {}


class WordyEntropy(Uniform):
    def selection_entropy(self, observation):
        return "high"


def test_an_entropy_that_is_no_number_is_named(env):
    entropy = selection_entropy_of(WordyEntropy(), env.selection.observation_set.teacher_blocks)
    with pytest.raises(InputError, match=r"policy 'WordyEntropy': selection_entropy\(\) returned a str; return numbers \[num_envs\]"):
        entropy(env.selection.observation())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 2)), r"an array of shape \(4, 2\); return numbers \[num_envs\]"),
        ([], r"an array of shape \(0,\)"),
        ([0.2, 1.3], "1.3; divide the entropy by that of equal probabilities"),
    ],
)
def test_an_entropy_of_another_shape_or_range_is_named(env, values, message):
    policy = type("Entropic", (Uniform,), {"selection_entropy": lambda self, observation: values})()
    with pytest.raises(InputError, match=rf"policy 'Entropic': selection_entropy\(\) returned {message}"):
        selection_entropy_of(policy, ())(env.selection.observation())


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"env_options": ["action"]}, r"env_options=\['action'\]; expected a dict of environment keywords"),
        ({"training_episodes": "three"}, r"training_episodes='three'; expected a whole number of at least 0"),
        ({"training_episodes": -1}, r"training_episodes=-1; expected a whole number of at least 0"),
        ({"training_episodes": 1.5}, r"training_episodes=1\.5; expected a whole number of at least 0"),
    ],
)
def test_an_attribute_of_another_type_is_named(attributes, message):
    with pytest.raises(InputError, match=rf"policy 'Declared': {message}"):
        declared("Declared", type("Declared", (Uniform,), attributes), {})


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (DividesInAct, r"DividesInAct, act\(\): ZeroDivisionError: mine \(.*test_faults.py, line \d+\)"),
        (ExitsInAct, r"ExitsInAct, act\(\): sys.exit\(0\) \(.*test_faults.py, line \d+\)"),
        (FailsInUpdate, r"FailsInUpdate, update\(\): ValueError: .*test_faults.py, line \d+\)"),
        (FailsInBegin, r"FailsInBegin, begin_episode\(\): KeyError: 'gone' \(.*test_faults.py"),
    ],
)
def test_an_exception_of_a_policy_is_one_line(env, policy, message):
    with pytest.raises(InputError, match=message):
        run_episode(env, policy(), 0)


def test_an_exception_of_learn_is_one_line(env):
    with pytest.raises(InputError, match=r"Learns, learn\(\): sys.exit\('enough'\)"):
        teach(env, [Learns()], [0])


def test_an_input_error_of_the_environment_stays_as_it_is(env):
    class Wrong:
        def act(self, observation):
            return np.ones(3)

    with pytest.raises(InputError, match=r"^action 'subset': expected 32 numbers"):
        run_episode(env, Wrong(), 0)


def test_a_fault_of_this_project_keeps_its_traceback(env):
    policy = make_policy("uniform", env)
    with pytest.raises(ZeroDivisionError), faults_of(policy, "act"):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), faults_of(Uniform(), "act"):
        raise KeyboardInterrupt


class GivesArray:
    def __init__(self, context, seed=0):
        pass

    def decide(self, batch):
        return np.ones((8, 4))


def test_a_rule_returns_a_tensor(env):
    with pytest.raises(InputError, match=r"decide\(\) returned a ndarray, expected a tensor"):
        run_episode(env, make_policy(GivesArray, env), 0)


def test_an_action_with_a_gradient(env):
    class Gradient:
        def act(self, observation):
            return torch.ones(8, 4, requires_grad=True)

    with pytest.raises(InputError, match="action 'subset': a Tensor is not an array of numbers"):
        run_episode(env, Gradient(), 0)


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (
            "ppo",
            {"action": "one", "observation": "full"},
            "policy 'ppo' needs observation=summary, and the environment has observation=full",
        ),
        ("reinforce", {"action": "weights", "observation": "full"}, "needs action=subset, and the environment has action=weights"),
        ("exp3", {"action": "one"}, "needs granularity=batch, and the environment has granularity=instance"),
    ],
)
def test_an_agent_is_not_built_for_an_environment_with_other_settings(policy, settings, message):
    with pytest.raises(InputError, match=message):
        make_policy(policy, make(**settings))


def test_a_rule_decides_in_any_environment():
    env = make(action="one", observation="full")
    observation, _ = env.reset(seed=0)
    most_confident = env.distillation.observe().teacher_logits.softmax(2).amax(2).argmax(1)
    action = make_policy("most_confident", env).act(observation)
    assert action.tolist() == most_confident.tolist()
    env.step(action)
