"""The arrays of a task of the user's own: other types and shapes are one line that names the split."""

from dataclasses import replace

import numpy as np
import pytest

from kd_env import tasks
from kd_env.errors import InputError


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        ("train", lambda s: {"labels": s.labels.astype(float)}, "'train': labels are float64 of shape .*expected int64"),
        ("test", lambda s: {"labels": s.labels.tolist()}, "'test': labels are a list, expected int64"),
        ("train", lambda s: {"inputs": list(s.inputs)}, "'train': inputs are a list, expected a NumPy array"),
        (
            "reward",
            lambda s: {"inputs": s.inputs[:, :, :4]},
            r"'reward': its examples have shape \[1, 4, 8\], those of train have \[1, 8, 8\]",
        ),
        ("train", lambda s: {"inputs": s.inputs.astype(np.float64)}, "'train': images are float64"),
        ("train", lambda s: {"inputs": s.inputs[:, 0]}, "'train': images are float32 of shape"),
        ("validation", lambda s: {"groups": np.zeros(3, dtype=np.int64)}, "'validation': 3 groups but"),
        ("validation", lambda s: {"groups": np.array(["a"] * len(s))}, "'validation': groups are <U1"),
    ],
)
def test_arrays_of_images(split, changes, message):
    task = tasks.load("digits")
    part = getattr(task, split)
    with pytest.raises(InputError, match=message):
        replace(task, **{split: replace(part, **changes(part))})


def test_texts_are_strings(own_task):
    numbers = np.arange(len(own_task.train)).astype(object)
    with pytest.raises(InputError, match=r"'train': texts are object of shape .*expected str \[N\]"):
        replace(own_task, train=replace(own_task.train, inputs=numbers))


def test_a_split_is_a_split():
    with pytest.raises(InputError, match=r"'train': a tuple, expected a kd_env\.tasks\.Split"):
        replace(tasks.load("digits"), train=(1, 2))
