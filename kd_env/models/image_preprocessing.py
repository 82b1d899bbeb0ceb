"""Read how a checkpoint of Transformers preprocesses images. In: its folder and configuration. Out: an :class:`ImageReader`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import read_json
from kd_env.models.encode import ImageReader

SIDE = 224
"""Height and width of images where neither the model nor its preprocessing says them."""
_EFFICIENTNET = "EfficientNet"
"""How the names of EfficientNet's image processors begin."""
_LARGEST = 1e30
"""Statistics of images are below this number; larger ones, infinity and NaN are faults of a file."""


def image_reader(folder: Path, config: Any, any_size: bool) -> ImageReader:
    """Return the function that encodes images for a checkpoint.

    Entries that are null count as missing, as in Transformers. Resizing is bilinear whatever ``resample`` says, and the whole image is
    scaled to the size after the crop: nothing is cut off. Without ``do_rescale``, images are in [0, 1] too.

    Args:
        folder: folder of the checkpoint.
        config: configuration of the model.
        any_size: whether the network reads images of any size. Then the size of the preprocessing counts, and that of the configuration
            only where there is no other; for other networks it is the other way round.

    Raises:
        InputError: mean, standard deviation or scale is not a number, or does not fit the number of channels.
    """
    vision = getattr(config, "vision_config", config)
    channels = getattr(vision, "num_channels", 3)
    path = folder / "preprocessor_config.json"
    settings = {key: value for key, value in (read_json(path) if path.exists() else {}).items() if value is not None}
    processor = settings.get("image_processor_type", "")
    crops = settings.get("do_center_crop", not str(processor).startswith(_EFFICIENTNET))
    of_model, of_preprocessing = [getattr(vision, "image_size", None)], [settings.get("crop_size") if crops else None, settings.get("size")]
    sizes = of_preprocessing + of_model if any_size else of_model + of_preprocessing
    side = next((side for side in map(_side, sizes) if side), SIDE)
    is_efficientnet = str(processor or config.model_type).lower().startswith(_EFFICIENTNET.lower())
    mean, std = _statistics(path, settings, channels, is_efficientnet)
    return ImageReader(side, channels, mean, std)


def _statistics(path: Path, settings: dict[str, Any], channels: int, is_efficientnet: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of each channel which do to an image in [0, 1] what the preprocessing does to its pixels in [0, 255].

    Those of EfficientNet can subtract 1 from the scaled pixels (``rescale_offset``), and divide twice by the deviation (``include_top``).
    """
    normalises, rescales = settings.get("do_normalize", bool(settings)), settings.get("do_rescale", True)
    divides_again = is_efficientnet and settings.get("include_top", "image_processor_type" in settings)
    mean, std, once = (0.0,) * channels, (1.0,) * channels, (1.0,) * channels
    if normalises or divides_again:
        mean, std = (_numbers(settings.get(key, 0.5), channels) for key in ("image_mean", "image_std"))
        if not mean or not std or min(std) <= 0:
            raise InputError(f"{path}: image_mean and image_std must have {channels} numbers each, image_std above 0; correct the file")
    factor = _numbers(settings.get("rescale_factor", 1 / 255), 1) if rescales else (1 / 255,)
    if not factor or factor[0] <= 0:
        raise InputError(f"{path}: rescale_factor must be a number above 0; correct the file")
    white, offset = 255 * factor[0], float(bool(is_efficientnet and rescales and settings.get("rescale_offset")))
    first, second = (std if normalises else once), (std if divides_again else once)
    return (
        tuple((value + offset) / white for value in (mean if normalises else (0.0,) * channels)),
        tuple(deviation * again / white for deviation, again in zip(first, second, strict=True)),
    )


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    """Return ``count`` finite numbers: those of a list, or a number for all of them; an empty tuple if ``value`` is neither."""
    values = value if isinstance(value, list) else [value] * count
    numbers = [float(number) for number in values if type(number) in (int, float) and abs(number) < _LARGEST]
    return tuple(numbers) if len(numbers) == len(values) == count else ()


def _side(size: object) -> int | None:
    """Return the side of square images that a configuration describes as a number, a pair or a mapping."""
    if isinstance(size, dict):
        return _side(size.get("height") or size.get("shortest_edge"))
    if isinstance(size, list | tuple) and size:
        return _side(size[0])
    return size if isinstance(size, int) and size > 0 else None
