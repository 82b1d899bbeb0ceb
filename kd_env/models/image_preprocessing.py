"""Read how a checkpoint of Transformers preprocesses images. In: its folder and configuration. Out: an :class:`ImageReader`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import read_json
from kd_env.models.encode import ImageReader

SIDE = 224
"""Height and width of images where neither the model nor its preprocessing says them."""
_STATISTICS = (("image_mean", 0.0), ("image_std", 1.0))
"""Keys of a preprocessor's file, and the values that do not change an image."""


def image_reader(folder: Path, config: Any, any_size: bool) -> ImageReader:
    """Return the function that encodes images for a checkpoint.

    Args:
        folder: folder of the checkpoint.
        config: configuration of the model.
        any_size: whether the network reads images of any size. Then the size of the preprocessing counts, and that of the configuration
            only where there is no other; for other networks it is the other way round.

    Raises:
        InputError: mean or standard deviation does not fit the number of channels.
    """
    vision = getattr(config, "vision_config", config)
    channels = getattr(vision, "num_channels", 3)
    path = folder / "preprocessor_config.json"
    settings = read_json(path) if path.exists() else {}
    of_model, of_preprocessing = [getattr(vision, "image_size", None)], [settings.get("crop_size"), settings.get("size")]
    sizes = of_preprocessing + of_model if any_size else of_model + of_preprocessing
    side = next((side for side in map(_side, sizes) if side), SIDE)
    normalise = settings.get("do_normalize", bool(settings))
    mean, std = (tuple(settings.get(key, (0.5,) * channels)) if normalise else (fill,) * channels for key, fill in _STATISTICS)
    if len(mean) != channels or len(std) != channels or not all(std):
        raise InputError(f"{path}: image_mean and image_std must have {channels} numbers each, image_std above 0; correct the file")
    return ImageReader(side, channels, mean, std)


def _side(size: object) -> int | None:
    """Return the side of square images that a configuration describes as a number, a pair or a mapping."""
    if isinstance(size, dict):
        return _side(size.get("height") or size.get("shortest_edge"))
    if isinstance(size, list | tuple) and size:
        return _side(size[0])
    return size if isinstance(size, int) and size > 0 else None
