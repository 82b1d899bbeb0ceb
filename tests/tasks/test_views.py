"""Views of the training images: moved and mirrored copies, of train alone."""

import numpy as np
import pytest
from published_files import cifar10

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import memory
from kd_env.tasks.task import SPLITS, Split
from kd_env.tasks.views import with_views


def test_views_are_the_image_and_moved_and_mirrored_copies():
    rng = np.random.default_rng(0)
    train = Split(rng.random((50, 3, 16, 16), dtype=np.float32), np.arange(50) % 7, np.arange(50) % 2)
    views = with_views(train, 3, "t")
    assert views.inputs.shape == (150, 3, 16, 16)
    assert np.array_equal(views.inputs[:50], train.inputs)
    assert np.array_equal(views.labels, np.tile(train.labels, 3))
    assert np.array_equal(views.groups, np.tile(train.groups, 3))
    assert np.array_equal(views.originals, np.tile(np.arange(50), 3))
    padded = np.pad(train.inputs, ((0, 0), (0, 0), (2, 2), (2, 2)))
    mirrored = 0
    for row, image in enumerate(views.inputs[50:]):
        windows = [padded[row % 50, :, top : top + 16, left : left + 16] for top in range(5) for left in range(5)]
        plain, flipped = (any(np.array_equal(image, window[..., ::step]) for window in windows) for step in (1, -1))
        assert plain != flipped, "it is one of the windows, as it is or mirrored"
        mirrored += flipped
    assert 30 < mirrored < 70
    assert not np.array_equal(views.inputs[50:100], views.inputs[100:])
    assert np.array_equal(with_views(train, 3, "t").inputs, views.inputs), "they are always the same"
    assert with_views(train, 1, "t") is train


def test_views_are_of_train_alone_and_are_named(tmp_path):
    plain, viewed = tasks.load("cifar10", str(cifar10(tmp_path))), tasks.load("cifar10(views=3)", str(tmp_path))
    assert viewed.name == "cifar10(views=3)"
    assert len(viewed.train) == 3 * len(plain.train)
    for name in SPLITS[1:]:
        assert np.array_equal(getattr(viewed, name).inputs, getattr(plain, name).inputs)
    assert "train holds 3 views of each of 322 images: moved by up to an eighth of the side, half of them mirrored" in viewed.notes
    originals = {row.tobytes() for row in plain.train.inputs}
    assert sum(row.tobytes() in originals for row in viewed.train.inputs) >= 322
    for views in (0, 65, 1.5, "x"):
        with pytest.raises(InputError, match=rf"^task cifar10\(views='?{views}'?\): expected a whole number"):
            tasks.load(f"cifar10(views={views})", str(tmp_path))


def test_views_that_need_more_memory_than_the_machine_has_are_refused(monkeypatch):
    train = Split(np.zeros((50, 3, 16, 16), dtype=np.float32), np.arange(50))
    monkeypatch.setattr(memory, "machine_memory", lambda: 4 * 4 * train.inputs.size - 1)
    message = r"^task cifar10\(views=4\): 200 images of 16 x 16 pixels need .* and this machine has .*; take fewer than 4 views, or smaller"
    with pytest.raises(InputError, match=message):
        with_views(train, 4, "cifar10(views=4)")
    assert len(with_views(train, 3, "cifar10(views=3)")) == 150
