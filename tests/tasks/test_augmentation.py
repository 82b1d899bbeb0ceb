"""Augmentation: what each change does to an image, that draws follow from the generator, and what is refused."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from kd_env.errors import InputError
from kd_env.tasks.augmentation import Augmentation, crop, cutout, flip

IMAGES = np.random.default_rng(0).uniform(0.1, 1.0, (40, 3, 8, 6)).astype(np.float32)


def rng():
    return np.random.default_rng(5)


def test_no_change_returns_the_images_themselves():
    assert Augmentation.of("")(IMAGES, rng()) is IMAGES


def test_equal_generators_give_equal_images_and_others_do_not():
    augment = Augmentation.of("crop(padding=2),flip,cutout(size=3)")
    changed = augment(IMAGES, rng())
    assert changed.shape == IMAGES.shape
    assert changed.dtype == np.float32
    assert np.array_equal(changed, augment(IMAGES, rng()))
    assert not np.array_equal(changed, augment(IMAGES, np.random.default_rng(6)))


def test_a_crop_is_a_window_of_the_padded_image_and_all_windows_occur():
    changed = crop(1)(np.repeat(IMAGES[:1], 200, 0), rng())
    padded = np.pad(IMAGES[0], ((0, 0), (1, 1), (1, 1)))
    windows = [padded[:, top : top + 8, left : left + 6] for top in range(3) for left in range(3)]
    windows_of_images = [[index for index, window in enumerate(windows) if np.array_equal(image, window)] for image in changed]
    assert all(len(equal) == 1 for equal in windows_of_images)
    assert {equal[0] for equal in windows_of_images} == set(range(9))


def test_a_flip_mirrors_left_and_right_at_its_rate():
    changed = flip()(IMAGES, rng())
    mirrored = np.array([np.array_equal(image, old[..., ::-1]) for image, old in zip(changed, IMAGES, strict=True)])
    same = np.array([np.array_equal(image, old) for image, old in zip(changed, IMAGES, strict=True)])
    assert (mirrored ^ same).all()
    assert 10 < mirrored.sum() < 30
    assert np.array_equal(flip(1.0)(IMAGES, rng()), IMAGES[..., ::-1])


def test_a_cutout_sets_one_square_to_zero_in_all_channels():
    changed = cutout(3)(IMAGES, rng())
    zero = changed == 0.0
    assert (zero == zero[:, :1]).all()
    assert np.array_equal(changed[~zero], IMAGES[~zero])
    for image in zero[:, 0]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert 1 <= len(rows) <= 3
        assert 1 <= len(columns) <= 3
        assert image[np.ix_(rows, columns)].all()
        assert image.sum() == len(rows) * len(columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crp", "unknown augmentation 'crp'; did you mean 'crop'"),
        ("crop(padding=0)", r"crop\(padding=0\): expected a whole number of at least 1"),
        ("flip(rate=2)", r"flip\(rate=2\): expected a number"),
        ("cutout(size=x)", r"cutout\(size='x'\): expected a whole number"),
        ("flip(side=1)", "options: rate"),
        (" , ", "augmentation=' , ': names no change; known: crop, flip, cutout, randaugment, or leave augmentation out"),
        ("randaugment(operations=0)", r"randaugment\(operations=0\): expected a whole number"),
    ],
)
def test_what_does_not_exist_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        Augmentation.of(text)


def test_randaugment_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match=r"randaugment needs torchvision .* install the extra 'vision', or leave it out"):
        Augmentation.of("randaugment")


class DarkensAtRandom:
    """In place of torchvision's RandAugment: reads bytes, and draws from torch's global generator."""

    def __init__(self, num_ops, magnitude):
        self.options = num_ops, magnitude

    def __call__(self, image):
        assert image.dtype == torch.uint8
        assert self.options == (3, 7)
        return image // int(torch.randint(2, 5, ()))


def test_randaugment_gives_bytes_to_torchvision_and_follows_from_the_generator(monkeypatch):
    transforms, v2 = ModuleType("torchvision.transforms"), ModuleType("torchvision.transforms.v2")
    transforms.v2, v2.RandAugment = v2, DarkensAtRandom
    for module in (ModuleType("torchvision"), transforms, v2):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    augment = Augmentation.of("randaugment(operations=3,magnitude=7)")
    before = torch.get_rng_state()
    changed = augment(IMAGES, rng())
    assert torch.equal(torch.get_rng_state(), before)
    assert changed.dtype == np.float32
    divisors = [
        [divisor for divisor in (2, 3, 4) if np.allclose(image * 255, np.rint(original * 255) // divisor)]
        for image, original in zip(changed, IMAGES, strict=True)
    ]
    assert {divisor for [divisor] in divisors} == {2, 3, 4}, "each image has its own draws"
    assert np.array_equal(changed, augment(IMAGES, rng()))
    assert not np.array_equal(changed, augment(IMAGES, np.random.default_rng(6)))
