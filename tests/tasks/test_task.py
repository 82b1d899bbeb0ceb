"""A task refuses splits that nothing can be learned from, and default settings by their former names."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from text_data import write_texts

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import Defaults, Split, digits
from kd_env.tasks.task import task_name

DEFAULTS = {"pool": "p", "student": "mlp", "updates": 1, "kd_weight": 1.0, "temperature": 2.0}


@pytest.fixture(scope="module")
def task():
    return digits.load()


def test_the_former_name_of_a_default_is_refused_with_the_new_name():
    with pytest.raises(InputError, match=r"^Defaults\(strength=0\.5\): 'strength' is now called 'kd_weight'; use that name$"):
        Defaults(pool="p", student="mlp", updates=1, strength=0.5, temperature=2.0)


def with_the_former_name():
    return dataclasses.replace(digits.load(), defaults=Defaults(pool="p", student="mlp", updates=1, strength=0.5, temperature=2.0))


def test_a_task_of_one_s_own_with_the_former_name_is_refused_with_the_new_name():
    with pytest.raises(InputError, match="'strength' is now called 'kd_weight'; use that name"):
        tasks.load(f"{__name__}:with_the_former_name")


def test_defaults_can_be_copied_and_changed():
    defaults = Defaults(**DEFAULTS)
    assert pickle.loads(pickle.dumps(defaults)) == copy.deepcopy(defaults) == Defaults("p", "mlp", 1, 1.0, 2.0) == defaults
    assert dataclasses.replace(defaults, kd_weight=0.5).kd_weight == 0.5


def test_a_metric_that_is_not_known_is_refused(task):
    with pytest.raises(InputError, match="unknown metric of task 'digits' 'rouge'; known: accuracy, f1, f1_macro, mcc"):
        dataclasses.replace(task, metric="rouge")


def test_splits_that_nothing_can_be_learned_from_are_refused(task):
    def changed(**parts):
        return dataclasses.replace(task, train=dataclasses.replace(task.train, **parts))

    with pytest.raises(InputError, match="task 'digits': split 'train' is empty; every split needs at least one example"):
        dataclasses.replace(task, train=task.train.take(np.arange(0)))
    with pytest.raises(InputError, match="task 'digits', split 'train': 3588 inputs but 3587 labels"):
        changed(labels=task.train.labels[1:])
    with pytest.raises(InputError, match=r"task 'digits', split 'train': labels must lie in 0\.\.9$"):
        changed(labels=task.train.labels + 1)
    with pytest.raises(InputError, match="task 'digits', split 'train': images hold NaN or infinite values"):
        changed(inputs=np.where(task.train.inputs > 0.99, np.float32(np.nan), task.train.inputs))


def test_unknown_labels_are_refused_unless_the_task_declares_them(tmp_path):
    for name, count in (("train", 40), ("reward", 20), ("validation", 20), ("test", 20)):
        write_texts(tmp_path, name, count)
    write_texts(tmp_path, "unlabelled", 200, label=False)
    task = tasks.load(f"folder:{tmp_path}(unlabelled=true)")
    with pytest.raises(InputError, match=r"split 'train': labels must lie in 0\.\.1$"):
        dataclasses.replace(task, unlabelled=False)
    with pytest.raises(InputError, match="split 'reward': labels must lie"):
        dataclasses.replace(task, reward=task.train)
    with pytest.raises(InputError, match=r"split 'train': labels must lie in 0\.\.1, or be -1 where unknown"):
        dataclasses.replace(task, train=dataclasses.replace(task.train, labels=task.train.labels - 1))
    with pytest.raises(InputError, match="split 'train': no example has a label; teachers are trained on those that have one"):
        dataclasses.replace(task, train=task.train.take(np.flatnonzero(task.train.labels < 0)))


def test_development_has_no_test_and_the_same_content(task):
    assert task.development().test is None
    assert task.development().fingerprint == task.fingerprint


def test_the_fingerprint_follows_the_content_of_train_reward_and_validation(task):
    fewer = Split(task.train.inputs, task.train.labels, None)
    other_labels = Split(task.train.inputs, task.train.labels[::-1].copy(), task.train.groups)
    changed = [
        dataclasses.replace(task, train=fewer),
        dataclasses.replace(task, train=other_labels),
        dataclasses.replace(task, reward=task.reward.take(np.arange(1, len(task.reward)))),
        dataclasses.replace(task, validation=task.reward),
        dataclasses.replace(task, class_names=tuple("abcdefghij")),
    ]
    assert len({task.fingerprint, *(other.fingerprint for other in changed)}) == 6
    assert dataclasses.replace(task, test=task.reward, name="other").fingerprint == task.fingerprint


def test_a_name_carries_the_options_that_are_not_the_default():
    assert task_name("t", {"b": 1, "a": "x"}, {"a": "y", "b": 1}) == "t(a=x)"
    assert task_name("t", {"b": 2, "a": "x"}, {"a": "y", "b": 1}) == "t(a=x,b=2)"
    assert task_name("t", {}, {}) == "t"


@pytest.mark.parametrize("names", [("only",), ("a", "b", "a"), ()])
def test_classes_are_at_least_two_and_have_different_names(task, names):
    with pytest.raises(InputError, match="give at least two different names"):
        dataclasses.replace(task, class_names=names)
