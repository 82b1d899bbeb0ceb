"""The config of fine-tuning: defaults, values that are refused, and folds."""

import dataclasses

import numpy as np
import pytest

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of

QUICK = FinetuneConfig("tiny-bert(width=16,layers=1)", epochs=2, seed=3)


def test_defaults_depend_on_the_model(own_task, make_checkpoint, tmp_path):
    built_in = FinetuneConfig("tiny-bert").filled(own_task)
    assert (built_in.epochs, built_in.lr, built_in.max_length) == (20, 1e-3, 128)
    checkpoint = FinetuneConfig(str(make_checkpoint(tmp_path / "model"))).filled(own_task)
    assert (checkpoint.epochs, checkpoint.lr) == (3, 5e-5)
    assert dataclasses.replace(QUICK, lr=0.1).filled(own_task) == dataclasses.replace(QUICK, lr=0.1, max_length=128)
    assert QUICK.filled(dataclasses.replace(own_task, max_length=200)).max_length == 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"fraction": 0.0}, "fraction=0.0 must be above 0, at most 1"),
        ({"fraction": 1.5}, "fraction=1.5 must be above 0, at most 1"),
        ({"label_noise": 2.0}, r"label_noise=2.0 must be in \[0, 1\]"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"lr": 0.0}, "lr=0.0 must be above 0"),
        ({"max_length": 2}, r"max_length=2 must be in \[3, 1048576\]"),
        ({"groups": ("a", "c")}, "unknown group of task '.*' 'c'; known: a, b"),
        ({"model": "mlp(width=8)"}, r"model 'mlp\(width=8\)' cannot be saved as a checkpoint; use tiny-bert, a folder or a hub id"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(values, message, own_task):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(QUICK, **values).filled(own_task)


def test_what_images_cannot_use_is_named():
    digits = tasks.load("digits")
    with pytest.raises(InputError, match="use tiny-vit, a convolutional network such as resnet20, a folder or a hub id"):
        FinetuneConfig("mlp").filled(digits)
    with pytest.raises(InputError, match="max_length=10: task 'digits' has images, and this is the length of texts; leave it out"):
        FinetuneConfig("tiny-vit", max_length=10).filled(digits)


def test_a_fold_follows_from_the_content_alone():
    texts = [f"text number {i}" for i in range(300)]
    folds = np.array([fold_of(text, 3) for text in texts])
    assert np.bincount(folds, minlength=3).min() > 70
    assert fold_of("The  Film", 7) == fold_of("the film", 7)
    assert fold_of("caf\u00e9", 1000) == fold_of("Cafe\u0301", 1000)
    pair = np.array(["a text", "another"], dtype=object)
    assert fold_of(pair, 1000) == fold_of(np.array(["A Text", " another "], dtype=object), 1000)
    assert fold_of(pair, 1000) != fold_of(pair[::-1], 1000)
    images = np.random.default_rng(0).random((2, 1, 4, 4), dtype=np.float32)
    assert fold_of(images[0], 1000) == fold_of(images[0].copy(), 1000) != fold_of(images[1], 1000)
