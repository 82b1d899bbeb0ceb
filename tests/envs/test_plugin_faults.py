"""What a user's own reward, credit, knowledge type, observation set or rule raises or returns arrives in one line that names it."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from kd_env.envs.actions import TeacherAction
from kd_env.envs.observations import ObservationSet
from kd_env.envs.rewards import Reward
from kd_env.errors import InputError
from kd_env.knowledge import Knowledge
from kd_env.policies import make_policy
from kd_env.types import DecodedAction

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


class Single(ObservationSet):
    def blocks(self, batch, labels):
        return {"mine": torch.tensor(1.0)}


class Named(ObservationSet):
    def blocks(self, batch, labels):
        return {"progress": torch.zeros(8, 1)}


class NotANumberBlock(ObservationSet):
    def blocks(self, batch, labels):
        return {"mine": torch.full((8, 1), float("nan"))}


class Overwriting(ObservationSet):
    def blocks(self, batch, labels):
        return {"mine": batch.teacher_logits.mul_(0.0).flatten(1)}


class Teachers(TeacherAction):
    size = 4

    def space(self, slots=1):
        return spaces.Box(-1.0, 1.0, (4,) if slots == 1 else (slots, 4), np.float32)

    def decode_table(self, table):
        return self.decoded


class NoWeights(Teachers):
    decoded = None


class FewWeights(Teachers):
    decoded = DecodedAction(np.full((8, 2), 0.5))


class NegativeWeights(Teachers):
    decoded = DecodedAction(np.array([[1.5, -0.5, 0.0, 0.0]] * 8))


class LargeWeights(Teachers):
    decoded = DecodedAction(np.ones((8, 4)))


def raising_credit(run, meter, names, temperature):
    return 1 / 0


def no_credit(run, meter, names, temperature):
    return None


def few_rows(run, meter, names, temperature):
    return {name: torch.zeros(3, 4) for name in names}


def few_teachers(run, meter, names, temperature):
    return {name: torch.zeros(8, 3) for name in names}


def with_graph(run, meter, names, temperature):
    return {name: torch.randn(8, 4, requires_grad=True) * 2 for name in names}


def not_finite(run, meter, names, temperature):
    return {name: torch.full((8, 4), torch.nan) for name in names}


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
        "FewRows": "observation set: block 'mine' is not a tensor of 8 rows",
        "Single": "observation set: block 'mine' is not a tensor of 8 rows",
        "Named": "a block is named 'progress', which the environment adds",
        "NotANumberBlock": "observation set: block 'mine' has NaN, though the student has not diverged; replace it",
    },
    "credit": {
        "raising_credit": f"credit 'raising_credit': ZeroDivisionError: division by zero {PLACE}",
        "no_credit": r"returned a NoneType; return a dict of tensors",
        "few_rows": r"returned no tensor \[8, K\] for 'response'; return one for each of \['response'\]",
        "few_teachers": r"the function returned 'response' of shape \(8, 3\), expected \(8, 4\)",
        "not_finite": "the function returned NaN or infinite numbers for 'response'",
        "Reward": "is not a function",
    },
    "action": {
        "NoWeights": "decode_table returned a NoneType; return a kd_env.types.DecodedAction",
        "FewWeights": r"returned weights of shape \(8, 2\), expected an array \(8, 4\)",
        "NegativeWeights": "returned weights with NaN, infinite or negative numbers",
        "LargeWeights": "returned weights with the sum 4; let each row sum to 1 or 0",
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


def test_an_observation_set_that_overwrites_its_mini_batch_changes_no_student():
    networks = []
    for observation in ("summary", f"{MODULE}:Overwriting"):
        env = make(observation=observation, action="weights")
        env.reset(seed=0)
        env.step(np.zeros((8, 4)))
        networks.append(env.distillation.student.state())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_credit_with_a_graph_is_detached():
    env = make(credit=f"{MODULE}:with_graph", action="weights")
    env.reset(seed=0)
    info = env.step(np.zeros((8, 4)))[4]
    assert np.abs(info["credit"]).min(1).max() > 0.0


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
