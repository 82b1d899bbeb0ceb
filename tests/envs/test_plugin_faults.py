"""What a user's own reward, credit, knowledge type, observation set or rule raises or returns arrives in one line that names it."""

import sys

import gymnasium as gym
import pytest
import torch

from kd_env.envs.observations import ObservationSet
from kd_env.envs.rewards import Reward
from kd_env.errors import InputError
from kd_env.knowledge import Knowledge
from kd_env.policies import make_policy

MODULE = __name__


class RaisingReward(Reward):
    def pay(self, step):
        return 1 / 0


class ExitingReward(Reward):
    def pay(self, step):
        sys.exit(0)


class NoReward(Reward):
    def pay(self, step):
        return None


class OtherShape(Reward):
    def pay(self, step):
        return torch.zeros(3)


class NotANumberReward(Reward):
    def pay(self, step):
        return torch.full((len(step.batch.labels),), float("nan"))


class RaisingKnowledge(Knowledge):
    def target(self, teacher):
        return teacher.logits

    def loss(self, student, target):
        raise KeyError("mine")


class OneLoss(RaisingKnowledge):
    def loss(self, student, target):
        return torch.zeros(3)


class Scalar(RaisingKnowledge):
    def loss(self, student, target):
        return student.logits.mean()


class Text(RaisingKnowledge):
    def loss(self, student, target):
        return "no loss"


class RaisingObservations(ObservationSet):
    def blocks(self, batch, labels):
        return 1 / 0


class FewRows(ObservationSet):
    def blocks(self, batch, labels):
        return {"mine": torch.zeros(3, 1)}


def raising_credit(run, meter, names, temperature):
    return 1 / 0


def no_credit(run, meter, names, temperature):
    return None


def few_rows(run, meter, names, temperature):
    return {name: torch.zeros(3, 4) for name in names}


class NotANumber:
    env_options = {"action": "weights"}

    def __init__(self, context, seed=0):
        pass

    def decide(self, batch):
        return torch.full((8, 4), float("nan"))


PLACE = r"\(.*test_plugin_faults.py, line \d+\); fix it there"
FAULTS = {
    "reward": {
        "RaisingReward": f"reward RaisingReward: ZeroDivisionError: division by zero {PLACE}",
        "ExitingReward": rf"reward ExitingReward: sys.exit\(0\) {PLACE}",
        "NoReward": r"pay\(\) returned a NoneType, expected a tensor \[8\], one value per instance",
        "OtherShape": r"pay\(\) returned a tensor \[3\], expected a tensor \[8\]",
        "NotANumberReward": r"reward NotANumberReward: pay\(\) returned NaN or infinite numbers; return finite ones",
    },
    "knowledge": {
        "RaisingKnowledge": f"knowledge type '{MODULE}:RaisingKnowledge': KeyError: 'mine' {PLACE}",
        "OneLoss": r"knowledge type OneLoss: loss\(\) returned a tensor \[3\], expected one value per example, \[B\]",
        "Scalar": r"knowledge type Scalar: loss\(\) returned a tensor \[\], expected one value per example, \[B\]",
        "Text": r"knowledge type Text: loss\(\) returned a str, expected one value per example, \[B\]",
    },
    "observation": {
        "RaisingObservations": f"observation set: ZeroDivisionError: division by zero {PLACE}",
        "FewRows": "observation set: block 'mine' is no tensor of 8 rows",
    },
    "credit": {
        "raising_credit": f"credit 'raising_credit': ZeroDivisionError: division by zero {PLACE}",
        "no_credit": r"returned a NoneType, expected a tensor \[8, K\] for each of \['response'\]",
        "few_rows": r"expected a tensor \[8, K\]",
        "Reward": "is not a function",
    },
}


def make(**options):
    return gym.make_vec(
        "kd_env/TeacherSelection-v0", num_envs=8, vectorization_mode="vector_entry_point", task="digits", updates=4, **options
    ).unwrapped


@pytest.mark.parametrize(("setting", "name"), [(setting, name) for setting, names in FAULTS.items() for name in names])
def test_a_fault_of_a_plug_in_is_named(setting, name):
    with pytest.raises(InputError, match=FAULTS[setting][name]):  # noqa: PT012 (some fail when they are made, some when they run)
        env = make(**{setting: f"{MODULE}:{name}"})
        env.reset(seed=0)
        env.step(env.action_space.sample())


def test_weights_that_are_not_finite_are_refused_unless_the_student_diverges(monkeypatch):
    env = make(action="weights")
    observation, _ = env.reset(seed=0)
    policy = make_policy(NotANumber, env)
    with pytest.raises(InputError, match=r"NotANumber.*decide\(\) returned weights with NaN or infinite numbers"):
        policy.act(observation)
    monkeypatch.setattr(policy.context, "_student_diverges", lambda: True)
    policy.act(observation)


def test_what_built_in_parts_raise_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("kd_env.envs.rewards.DevImprovement.pay", lambda *_: 1 / 0)
    env = make()
    env.reset(seed=0)
    with pytest.raises(ZeroDivisionError):
        env.step(env.action_space.sample())
