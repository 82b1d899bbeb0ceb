"""Augment images for each update. In: images in [0, 1] and a random generator. Out: changed copies in [0, 1].

A new view of an image in each epoch needs teachers that answer for that view: the setting ``teacher_answers=live``. Views that are stored
once, with the teachers' answers in the bank, are in :mod:`kd_env.tasks.views`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kd_env import spec
from kd_env.errors import InputError
from kd_env.randomness import seeded

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Function of images ``[B, channels, H, W]`` and a generator that returns changed images of the same shape."""


@dataclass(frozen=True)
class Augmentation:
    """A sequence of random changes, such as ``crop(padding=4),flip,cutout(size=8)``.

    Attributes:
        changes: the changes in their order.
    """

    changes: tuple[Change, ...] = ()

    @classmethod
    def of(cls, text: str) -> Augmentation:
        """Return the changes that ``text`` names; an empty text names none.

        Raises:
            InputError: a change or an option is unknown, an option is out of range, or a text that is not empty names no change.
        """
        parts = spec.split(text)
        if text and not parts:
            raise InputError(f"augmentation={text!r}: names no change; known: {', '.join(AUGMENTATIONS)}, or leave augmentation out")
        return cls(tuple(_change(part, f"augmentation={text!r}") for part in parts))

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return changed copies of images ``[B, channels, H, W]``; each image has its own draws."""
        for change in self.changes:
            images = change(images, rng)
        return images


def crop(padding: int = 4) -> Change:
    """Return the change that pads each side with zeros and cuts out a window of the old size (He et al. 2016, arXiv 1512.03385)."""
    spec.numbers("crop", least=1, most=1000, whole=True, padding=padding)

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = images.shape[2:]
        padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        top, left = rng.integers(2 * padding + 1, size=(2, len(images)))
        rows = (top[:, None] + np.arange(height))[:, :, None]  # [B, H, 1]
        columns = (left[:, None] + np.arange(width))[:, None]  # [B, 1, W]
        cropped: np.ndarray = padded[np.arange(len(images))[:, None, None], :, rows, columns]  # [B, H, W, channels]
        return np.ascontiguousarray(cropped.transpose(0, 3, 1, 2))

    return change


def flip(rate: float = 0.5) -> Change:
    """Return the change that mirrors each image with probability ``rate``."""
    spec.numbers("flip", least=0, most=1, rate=rate)

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        mirrored = rng.random(len(images)) < rate
        return np.where(mirrored[:, None, None, None], images[..., ::-1], images)

    return change


def cutout(size: int = 8) -> Change:
    """Return the change that sets a square to 0 whose centre is anywhere in the image (DeVries and Taylor 2017, arXiv 1708.04552)."""
    spec.numbers("cutout", least=1, most=1000, whole=True, size=size)

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = images.shape[2:]
        centre = rng.integers([height, width], size=(len(images), 2))
        first = centre - size // 2  # [B, 2]
        rows, columns = np.arange(height) - first[:, :1], np.arange(width) - first[:, 1:]
        inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None]  # [B, H, W]
        return np.where(inside[:, None], np.float32(0.0), images)

    return change


def randaugment(operations: int = 2, magnitude: int = 9) -> Change:
    """Return RandAugment of torchvision (Cubuk et al. 2020, arXiv 1909.13719); it rounds images to 256 levels.

    Raises:
        InputError: torchvision is not installed, or an option is out of range.
    """
    spec.numbers("randaugment", least=1, most=20, whole=True, operations=operations)
    spec.numbers("randaugment", least=0, most=30, whole=True, magnitude=magnitude)
    try:
        from torchvision.transforms import v2  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except (ImportError, RuntimeError) as error:  # built for another torch, it raises a RuntimeError
        raise InputError(f"augmentation randaugment needs torchvision ({error}); install the extra 'vision', or leave it out") from None
    transform = v2.RandAugment(operations, magnitude)

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        levels = torch.from_numpy(np.rint(images * 255.0).astype(np.uint8))
        with seeded(int(rng.integers(2**31))):
            changed = torch.stack([transform(image) for image in levels])
        return changed.numpy().astype(np.float32) / np.float32(255.0)

    return change


AUGMENTATIONS: Mapping[str, Callable[..., Change]] = {"crop": crop, "flip": flip, "cutout": cutout, "randaugment": randaugment}
"""Changes by name."""


def _change(text: str, place: str) -> Change:
    name, options = spec.parse(text)
    if name not in AUGMENTATIONS:
        raise spec.unknown("augmentation", name, AUGMENTATIONS)
    change: Change = spec.call(place, AUGMENTATIONS[name], options)
    return change
