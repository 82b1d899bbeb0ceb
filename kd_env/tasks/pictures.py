"""Read one image file as numbers in [0, 1], and tell what was done to it. Images that would lose content without a word are refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_env.errors import InputError
from kd_env.paths import require_file

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
GREY = ("1", "L", "LA", "La", "I", "F", *SIXTEEN_BITS)
OTHER_COLOURS = ("CMYK", "YCbCr", "LAB", "HSV")
ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""
BITS_PER_SAMPLE = 258
"""The TIFF tag that says how many bits each channel has."""
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error)
"""What Pillow raises for files that are no images, and for damaged ones."""


@dataclass(frozen=True)
class Picture:
    """An image.

    Attributes:
        pixels: ``[H, W]`` of grey, or ``[H, W, 3]`` of colour: uint8, or float32 in [0, 1] of an image of 16 bits.
        deep: it has 16 bits.
        turned: it was turned or mirrored as its EXIF orientation says.
        scaled: it was scaled to another size.
        frames: it has several frames, of which this is the first.
        opaque: it has an alpha channel that hides nothing, which was dropped.
        converted: its colours are of another space, as CMYK, and were converted to RGB.
    """

    pixels: np.ndarray
    deep: bool = False
    turned: bool = False
    scaled: bool = False
    frames: bool = False
    opaque: bool = False
    converted: bool = False

    def channels(self, colour: bool) -> np.ndarray:
        """Return float32 ``[1, H, W]``, or ``[3, H, W]`` in colour, in [0, 1]."""
        from PIL import Image

        pixels = self.pixels
        if pixels.ndim == 3 and not colour:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))
        values = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels
        if values.ndim == 3:
            return values.transpose(2, 0, 1)
        return np.broadcast_to(values, (3 if colour else 1, *values.shape))


def is_grey(file: Path) -> bool:
    """Return whether the header of an image file says that it has no colours; ``False`` if it does not tell, or cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.mode in GREY
    except (*DAMAGED, Image.DecompressionBombError):
        return False


def read_picture(file: Path, shape: tuple[int, int] | None = None) -> Picture:
    """Read an image file.

    Args:
        shape: width and height to scale it to.

    Raises:
        InputError: Pillow cannot read the file, or the image has transparency, values of 32 bits, or of 16 bits with colour or alpha.
    """
    from PIL import Image

    require_file(file)
    try:
        with Image.open(file) as image:
            frames, kind, loses_bits = getattr(image, "n_frames", 1) > 1, image.format, _loses_bits(image)
            image.load()
            orientation = image.getexif().get(ORIENTATION, 1)
            upright = _upright(image) if orientation != 1 else image.copy()
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise InputError(f"{file} cannot be read as an image ({type(error).__name__}: {error}); replace or delete it") from None
    if loses_bits:
        raise InputError(f"{file}: values of 16 bits, of which Pillow reads 8; save it with 8 bits, or as a grey PNG or TIFF without alpha")
    values, deep, opaque = _values(file, upright, kind)
    scaled = shape is not None and values.size != shape
    if shape is not None and scaled:
        values = values.resize(shape, Image.Resampling.BILINEAR)
    pixels = np.array(values)
    converted = upright.mode in OTHER_COLOURS
    return Picture(pixels.clip(0.0, 1.0) if deep else pixels, deep, orientation != 1, scaled, frames, opaque, converted)


def _loses_bits(image: Any) -> bool:
    """Return whether an image that is not loaded yet has values of 16 bits that Pillow will cut to 8, as those of colour or with alpha."""
    if image.mode in ("I", "F", *SIXTEEN_BITS) or image.format in ("BMP", "DIB"):  # in a BMP, "16" is of all channels together
        return False
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))) > 8)
    if image.format == "JPEG2000":
        return _bits_of_jpeg2000(image.fp) > 8
    decoders = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in image.tile]
    of_ppm = image.format == "PPM" and any(value > 255 for decoder in decoders for value in decoder if isinstance(value, int))
    of_sgi = any(tile[0] == "SGI16" for tile in image.tile)
    return of_ppm or of_sgi or any(";16" in str(decoder[0]) for decoder in decoders if decoder)


def _bits_of_jpeg2000(file: Any) -> int:
    """Return the bits of the first channel, which the file's SIZ marker holds."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return int(content[content.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _values(file: Path, image: Any, kind: str | None) -> tuple[Any, bool, bool]:
    """Return the image in mode ``L``, ``RGB`` or, of 16 bits, ``F`` in [0, 1]; whether it has 16 bits, and whether it had an opaque alpha.

    Raises:
        InputError: the image has transparency, or values that are no 8 or 16 bits.
    """
    from PIL import Image

    mode, opaque = image.mode, False
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() < 255:
            raise InputError(
                f"{file}: transparency (mode {mode}), and what is behind it is not known; paste it on a background, without alpha"
            )
        opaque = True
    if mode in SIXTEEN_BITS or (mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.float32) / 65535.0
        return Image.fromarray(values), True, opaque
    if mode == "I":
        values = np.asarray(image)
        if values.min() >= 0 and 255 < values.max() <= 65535:
            return Image.fromarray(values.astype(np.float32) / 65535.0), True, opaque
    if mode in ("I", "F"):
        raise InputError(f"{file}: values of 32 bits (mode {mode}), whose range is not known; save it with 8 or 16 bits")
    if mode in ("1", "L", "LA", "La"):
        return image.convert("L"), False, opaque
    if mode == "P" and image.palette is not None and image.palette.mode == "L":
        return image.convert("L"), False, opaque
    return image.convert("RGB"), False, opaque
