"""The checks for plug-ins accept what is sound and name what is not."""

import dataclasses
import itertools

import numpy as np
import pytest

from agents.gradient_credit import GradientCredit
from baselines.router import Router
from kd_env import tasks
from kd_env.errors import InputError
from kd_env.policies import Range
from kd_env.testing import check_policy, check_task


class Constant:
    env_options = {"action": "one"}

    def __init__(self, env, seed=0, choice=0):
        self.num_envs, self.choice = env.num_envs, choice

    def act(self, observation):
        return np.full(self.num_envs, self.choice)


@pytest.mark.parametrize("policy", [Constant, GradientCredit, pytest.param(Router, marks=pytest.mark.long)])
def test_sound_policies_pass(policy):
    check_policy(policy)


def test_an_action_outside_the_space_is_named():
    with pytest.raises(AssertionError, match=r"Constant\.act returned .*not in"):
        check_policy(Constant, choice=7)


def test_an_unseeded_policy_is_found():
    class Unseeded(Constant):
        def act(self, observation):
            return np.random.default_rng().integers(4, size=self.num_envs)

    with pytest.raises(AssertionError, match="equal seeds gave different students"):
        check_policy(Unseeded)


def test_an_unknown_access_is_refused():
    class Sees(Constant):
        access = "everything"

    with pytest.raises(InputError, match="access='everything'"):
        check_policy(Sees)


def test_a_search_space_of_something_unknown_is_refused():
    class Tuned(Constant):
        search_space = {"chioce": Range(0, 3)}

    with pytest.raises(InputError, match="search_space: unknown option or setting 'chioce'; did you mean 'choice'"):
        check_policy(Tuned)


class Draws(Constant):
    """Draws its actions; its state leaves out the generator."""

    def __init__(self, env, seed=0):
        super().__init__(env)
        self.rng = np.random.default_rng(seed)

    def act(self, observation):
        return self.rng.integers(4, size=self.num_envs)

    def state(self):
        return {}

    def load_state(self, state):
        """Restore nothing."""


def test_a_state_without_the_generator_is_found():
    with pytest.raises(AssertionError, match=r"Draws: after load_state\(\) it teaches another student; state\(\) must hold all"):
        check_policy(Draws)


class Whole(Draws):
    def state(self):
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state):
        self.rng.bit_generator.state = state["rng"]


def test_a_whole_state_passes():
    check_policy(Whole)


class Remembers(Constant):
    """Chooses a teacher by the number of updates that it has learned from."""

    updates = 0

    def act(self, observation):
        return np.full(self.num_envs, self.updates % 3)

    def update(self, transition):
        self.updates += 1

    def state(self):
        return {"updates": self.updates}

    def load_state(self, state):
        self.updates = state["updates"]


def test_a_state_without_what_was_learned_is_found():
    class Forgets(Remembers):
        def state(self):
            return {"updates": 0}

    check_policy(Remembers)
    with pytest.raises(AssertionError, match=r"Forgets: after load_state\(\) it teaches another student"):
        check_policy(Forgets)


@pytest.mark.parametrize(("has", "lacks"), [("save", "load"), ("state", "load_state")])
def test_half_of_a_pair_of_methods_is_refused(has, lacks):
    half = type("Half", (Constant,), {has: lambda self, *arguments: {}})
    with pytest.raises(InputError, match=rf"Half has {has}\(\), and no {lacks}\(\); add it, or leave both out"):
        check_policy(half)


@pytest.mark.parametrize("name", ["digits", "domains(train=64,reward=32,validation=32,test=32)"])
def test_built_in_tasks_pass(name):
    check_task(lambda: tasks.load(name))


def test_what_is_no_function_of_a_task_is_refused():
    with pytest.raises(InputError, match="expected a function that returns a Task, got a Task; give the function"):
        check_task(tasks.load("digits"))
    with pytest.raises(InputError, match="returned a str; return a kd_env"):
        check_task(lambda: "digits")


def test_a_test_split_that_changes_is_found():
    task, rows = tasks.load("digits"), itertools.count(100)
    with pytest.raises(AssertionError, match="two calls returned different content"):
        check_task(lambda: dataclasses.replace(task, test=task.test.take(np.arange(next(rows)))))


@pytest.mark.parametrize(
    ("default", "message"), [({"pool": "digits/expert"}, "unknown pool"), ({"student": "mpl"}, "unknown network 'mpl'")]
)
def test_defaults_that_do_not_exist_are_refused(default, message):
    task = tasks.load("digits")
    wrong = dataclasses.replace(task, defaults=dataclasses.replace(task.defaults, **default))
    with pytest.raises(InputError, match=message):
        check_task(lambda: wrong)


def test_an_input_in_two_splits_is_found():
    task = tasks.load("digits")
    leaky = dataclasses.replace(task, validation=task.train.take(np.arange(10)))
    with pytest.raises(AssertionError, match="an input of 'validation' is also in 'train'"):
        check_task(lambda: leaky)
