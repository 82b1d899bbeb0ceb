"""Rewards: by hand, in a run, and classes of your own."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from playing import CLASSES, JOINT, KNOWLEDGE, batch, rollout, slots
from torch.nn.functional import cross_entropy

from kd_env.envs.rewards import REWARDS, Reward, TaughtBatch, make_reward
from kd_env.envs.settings import settings
from kd_env.errors import InputError

TAUGHT = {
    "improvement": np.array([0.25]),
    "held_out_metric": np.array([0.8]),
    "student_ce": torch.tensor([1.0, 2.0, 0.5]),
    "distillation_loss": torch.tensor([0.5, 0.0, 4.0]),
}


def taught(mix=0.75, **changes):
    """Three instances of one student, with the values after the update given by hand."""
    values = TAUGHT | changes
    step = TaughtBatch(
        run=None,
        batch=SimpleNamespace(labels=torch.zeros(3)),
        decision=None,
        improvement=values.pop("improvement"),
        held_out_metric=values.pop("held_out_metric"),
        mix=mix,
    )
    vars(step).update(values)
    return step


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dev_improvement", [0.25, 0.25, 0.25]),
        ("student_loss", [-1.0, -2.0, -0.5]),
        ("student_and_distillation_loss", [-1.5, -2.0, -4.5]),
        ("mixed", [0.75 * -1.5 + 0.2, 0.75 * -2.0 + 0.2, 0.75 * -4.5 + 0.2]),
    ],
)
def test_rewards_by_hand(name, expected):
    assert make_reward(name).pay(taught()).tolist() == pytest.approx(expected)


def test_every_reward_is_tried_here_and_is_a_setting(digits_data):
    for name in REWARDS:
        assert settings(digits_data.task, reward=name).reward.reward == name
    assert set(REWARDS) == {"dev_improvement", "student_loss", "student_and_distillation_loss", "mixed"}


def test_rewards_declare_what_they_read():
    assert {name for name, reward in REWARDS.items() if reward.measures} == {"dev_improvement", "mixed"}
    assert {name for name, reward in REWARDS.items() if reward.reads_labels} == set(REWARDS) - {"dev_improvement"}


def test_mixed_has_its_two_ends():
    mixed = make_reward("mixed")
    expected = make_reward("student_and_distillation_loss").pay(taught()).tolist()
    assert mixed.pay(taught(mix=1.0)).tolist() == expected
    assert mixed.pay(taught(mix=0.0)).tolist() == pytest.approx([0.8] * 3)


def test_values_of_students_are_repeated_for_their_instances():
    step = taught()
    object.__setattr__(step, "batch", SimpleNamespace(labels=torch.zeros(6)))
    assert step.per_instance(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("reward", ["student_loss", "student_and_distillation_loss", "mixed"])
def test_rl_kd_s_rewards_look_at_the_mini_batch_after_its_update(reward):
    env = batch(
        reward=reward, precision="float64", temperature=3.0, reward_labels=30, reward_examples=30, reward_mix=0.25, observe_labels=True
    )
    env.reset(seed=0)
    before = env.unwrapped.distillation.observe()
    subset = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])
    *_, paid, _, _, info = env.step(subset)
    run = env.unwrapped.distillation
    logits = run.student.predict({"pixel_values": run.data.inputs["train"]["pixel_values"][before.example_ids]})
    ce = float(cross_entropy(logits, before.labels))
    q, p = (logits / 3).softmax(1)[:, None], (before.teacher_logits / 3).softmax(2)
    kl = 9 * (p * (p / q).log()).sum(2)
    distillation = float((kl[0, 0] + kl[0, 3]) / 2 + kl[2, 1]) / 3
    inputs, labels = run.reward_split.at(run.reward_split.positions[0], run.student.device)
    accuracy = float((run.student.predict(inputs).argmax(1) == labels).double().mean())
    expected = {
        "student_loss": -ce,
        "student_and_distillation_loss": -ce - distillation,
        "mixed": 0.25 * (-ce - distillation) + 0.75 * accuracy,
    }[reward]
    assert paid == pytest.approx(expected, rel=1e-6)
    assert info["reward_terms"]["student_ce"].mean() == pytest.approx(float(cross_entropy(before.student.logits, before.labels)))


# Rewards of your own


class Confidence(Reward):
    """The largest probability after the update, times ``scale``; it needs neither labels nor measurements."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def pay(self, step):
        return self.scale * step.logits.softmax(1).amax(1)


class MeasuredConfidence(Confidence):
    measures = True

    def pay(self, step):
        return super().pay(step) * 0.0 + step.per_instance(step.held_out_metric)


class Failing(Confidence):
    def __init__(self):
        raise OverflowError("much too large")


OWN = f"{__name__}:Confidence"


@pytest.mark.parametrize("name", CLASSES)
def test_a_reward_of_one_s_own_pays_in_every_environment(name):
    env = batch(name, reward=f"{OWN}(scale=3.0)")
    env.reset(seed=0)
    for _ in range(2):
        before = env.unwrapped.distillation.observe()
        action = env.action_space.sample()
        *_, reward, _, _, info = env.step(action)
        run = env.unwrapped.distillation
        logits = run.student.predict({"pixel_values": run.data.inputs["train"]["pixel_values"][before.example_ids]})
        paid = 3.0 * float(logits.softmax(1).amax(1).mean())
        assert reward == pytest.approx(paid, rel=1e-6)
        assert "improvement" not in info["reward_terms"], "it asks for no measurement"
    assert env.unwrapped.selection.meter.state.forward_examples.tolist() == [0]


def test_a_reward_of_one_s_own_can_ask_for_measurements():
    env = batch(reward=f"{__name__}:MeasuredConfidence", reward_labels=20)
    returned = rollout(env, seed=0)
    meter = env.unwrapped.selection.meter
    assert all("improvement" in step[4]["reward_terms"] for step in returned[1:])
    assert meter.state.measurements.tolist() == [4]
    assert returned[-1][1] == pytest.approx(meter.metric[0])


def test_instances_are_paid_each_for_itself():
    env = slots(3, JOINT, reward=OWN, autoreset_mode="disabled")
    env.reset(seed=0)
    rewards = env.step(env.action_space.sample())[1]
    assert len(set(rewards.tolist())) == 3


CANNOT_BE_MADE = [
    ("student_los", r"unknown reward 'student_los'; did you mean 'student_loss'\? \(or name your own as module:Class\)"),
    (f"{__name__}:Missing", r"reward '.*:Missing' cannot be imported \(AttributeError: .*\); give module:name"),
    ("no_such_module:Reward", r"reward 'no_such_module:Reward' cannot be imported \(ModuleNotFoundError: "),
    (f"{__name__}:taught", r"taught is not a subclass of kd_env\.envs\.rewards\.Reward; derive it from that"),
    ("kd_env.envs.rewards:Reward", r"Reward does not define pay; define it"),
    (f"{OWN}(mix=2)", r"got an unexpected keyword argument 'mix'; options: scale"),
    ("mixed(mix=2)", r"reward 'mixed\(mix=2\)': .*options"),
]


def test_a_reward_that_cannot_be_made_is_named():
    for reward, message in CANNOT_BE_MADE:
        with pytest.raises(InputError, match=message):
            batch(KNOWLEDGE, reward=reward)


def test_an_error_raised_inside_a_reward_names_file_and_line():
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "much too large" in text)
    with pytest.raises(InputError) as caught:
        batch(reward=f"{__name__}:Failing")
    assert f"OverflowError: much too large ({__file__}, line {line})" in str(caught.value)


def test_credit_divides_no_reward_of_one_s_own():
    with pytest.raises(InputError, match=r"credit='head' replaces .*; with reward='.*:Confidence' use credit=shared"):
        batch(reward=OWN, credit="head")
