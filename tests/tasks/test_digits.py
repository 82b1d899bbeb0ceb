"""The digits in four views: no image is in two splits."""

import numpy as np
from sklearn.datasets import load_digits

from kd_env.tasks import digits
from kd_env.tasks.task import SPLITS

UNDO = (lambda x: x, lambda x: 1.0 - x, lambda x: x[:, :, ::-1], lambda x: x.transpose(0, 2, 1))


def undone(split):
    """Each example's image with its view taken back ``[N, 8, 8]``."""
    images = np.empty((len(split), 8, 8), dtype=np.float32)
    for group, undo in enumerate(UNDO):
        rows = split.groups == group
        images[rows] = undo(split.inputs[rows, 0])
    return images


def identities(split):
    return {image.tobytes() for image in undone(split)}


def test_all_views_of_an_image_stay_in_one_split():
    task = digits.load()
    images = {name: identities(getattr(task, name)) for name in SPLITS}
    for name in SPLITS:
        split = getattr(task, name)
        assert len(images[name]) == len(split) // 4
        assert (np.bincount(split.groups) == len(split) // 4).all()
        for other in set(SPLITS) - {name}:
            assert images[name].isdisjoint(images[other])
    source = {(image / 16.0).astype(np.float32).tobytes() for image in load_digits().images}
    assert set.union(*images.values()) == source


def test_views_keep_their_label():
    train = digits.load().train
    labels = {}
    for image, label in zip(undone(train), train.labels, strict=True):
        assert labels.setdefault(image.tobytes(), label) == label
    assert len(labels) == len(train) // 4, "four views of each image were compared"


def test_sizes_classes_and_range():
    task = digits.load()
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 3588, "reward": 1200, "validation": 800, "test": 1600}
    for name in SPLITS:
        split = getattr(task, name)
        assert split.inputs.shape[1:] == (1, 8, 8)
        assert split.inputs.dtype == np.float32
        assert split.inputs.min() == 0.0
        assert split.inputs.max() == 1.0
        assert np.bincount(split.labels).min() > 0.08 * len(split), "stratified"


def test_equal_calls_are_equal():
    first, second = digits.load(), digits.load()
    assert first.fingerprint == second.fingerprint
    assert (first.test.inputs == second.test.inputs).all()
    assert (first.test.groups == second.test.groups).all()
