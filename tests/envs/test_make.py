"""From keywords to an environment: what cannot be made is refused with one line."""

import itertools
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from playing import (
    CLASSES,
    CREDITS,
    GRANULARITIES,
    JOINT,
    KINDS,
    KNOWLEDGE,
    REWARDS,
    TEACHERS,
    batch,
    can_decide,
    can_pay,
    slots,
)

from kd_env.envs.actions import ACTIONS
from kd_env.envs.registration import register_envs
from kd_env.envs.rewards import REWARDS as REWARD_CLASSES
from kd_env.errors import InputError


@pytest.mark.parametrize("name", CLASSES)
def test_every_other_combination_is_refused(name, digits_data):
    """Of actions, granularities, rewards and credits; counted, so that none is forgotten. A full product: each case takes a millisecond."""
    task, message, legal = digits_data.task, "in this environment|leave granularity out|use credit=shared", 0
    for action, granularity, reward, credit in itertools.product(ACTIONS, GRANULARITIES, REWARDS, CREDITS):
        if can_decide(name, action, granularity) and can_pay(reward, credit):
            legal += 1
            continue
        options = {"task": task, "action": action, "granularity": granularity, "reward": reward, "credit": credit}
        with pytest.raises(InputError, match=message):
            batch(name, **options)
        with pytest.raises(InputError, match=message):
            slots(1, name, **options)
    assert legal == 8 * {TEACHERS: 6, KNOWLEDGE: 2, JOINT: 2}[name]


def test_credit_without_dev_improvement_is_refused():
    for reward, credit in itertools.product(REWARDS, CREDITS):
        if not can_pay(reward, credit):
            with pytest.raises(InputError, match="use credit=shared"):
                batch(reward=reward, credit=credit)


NO_ENVIRONMENT_HAS = [
    (TEACHERS, {"action": "soft"}, "expected subset, one, weights or module:Class in this environment"),
    (JOINT, {"action": "subset"}, "action='subset': expected joint or module:Class in this environment"),
    (KNOWLEDGE, {"granularity": "instance"}, "knowledge is selected for a batch or a phase; leave granularity out"),
    (JOINT, {"updates_per_phase": 2}, "a phase is taught with one action; give granularity=batch"),
    (JOINT, {"factors": "teachers,temperature_scale"}, "unknown factor 'temperature_scale'"),
    (JOINT, {"factors": "strength"}, "factors='strength': 'strength' is now called 'kd_weight'; use that name"),
    (JOINT, {"num_students": 2}, "num_students=2: gymnasium.make steps one student; make_vec steps a population"),
    (KNOWLEDGE, {"knowledge": "response,attention"}, "teacher 'upright' has no attention"),
    (KNOWLEDGE, {"knowledge": "response,label"}, "leave out label; the hard label is always part of the loss"),
    (KNOWLEDGE, {"knowledge": "response,feature"}, "knowledge='response,feature': 'feature' is now called 'layer'; use that name"),
    (TEACHERS, {"render_mode": "human"}, "render_mode='human': expected rgb_array or ansi"),
]


def test_what_no_environment_has_is_refused():
    for name, keywords, message in NO_ENVIRONMENT_HAS:
        with pytest.raises(InputError, match=message):
            CLASSES[name](**keywords)


CANNOT_BE_MADE = [
    ({"task": "digit"}, "did you mean 'digits'"),
    ({"task": 3}, "task=3"),
    ({"teachers": "digits/expert"}, "did you mean 'digits/experts'"),
    ({"teachers": "digits/experts/uprigt"}, "did you mean 'upright'"),
    ({"teachers": "domains/experts"}, "is for another task"),
    ({"teachers": ()}, "has no teachers"),
    ({"studnet": "mlp"}, "did you mean 'student'"),
    ({"student": "tiny-bert"}, "reads text"),
    ({"optimizer": "adam(lr=0)"}, "expected a number above 0"),
    ({"batch_size": 10**6}, "more than the 3588"),
    ({"device": "tpu"}, "device='tpu'"),
    ({"strength": 0.5}, "setting 'strength' is now called 'kd_weight'; use that name"),
    ({"features": "cls"}, "setting 'features' is now called 'observation'; use that name"),
    ({"companion": "module:Class"}, "setting 'companion' is now called 'auxiliary_module'; use that name"),
]


def test_what_cannot_be_made_is_named():
    for keywords, message in CANNOT_BE_MADE:
        with pytest.raises(InputError, match=message):
            batch(**keywords)


def test_a_folder_of_data_goes_with_the_name_of_a_task(digits_data):
    with pytest.raises(InputError, match="data_dir='somewhere': it is used only if task is a name, but task is a Task; leave it out"):
        batch(task=digits_data.task, data_dir="somewhere")


def test_rewards_that_read_labels_need_a_label_of_every_training_example(digits_data):
    train = digits_data.task.train
    labels = np.where(np.arange(len(train)) < 5, -1, train.labels)
    task = replace(digits_data.task, train=replace(train, labels=labels), unlabelled=True)
    for reward in (reward for reward, kind in REWARD_CLASSES.items() if kind.reads_labels):
        with pytest.raises(
            InputError,
            match=f"reward='{reward}' reads the label of every training example, but task 'digits' has unlabelled examples",
        ):
            batch(task=task, reward=reward)


def test_the_ids_are_registered_once():
    specs = {name: gym.spec(name) for name in CLASSES}
    register_envs()
    assert all(gym.spec(name) is spec for name, spec in specs.items())


def test_none_means_the_default_of_the_environment():
    for name, _ in KINDS:
        assert batch(name, action=None, observation=None).unwrapped.selection.settings == batch(name).unwrapped.selection.settings
