"""Refuse images that need more memory than the machine has, before they are read."""

from __future__ import annotations

import os

from kd_env.errors import InputError


def machine_memory() -> int | None:
    """Return the machine's memory in bytes, or ``None`` where the system does not tell it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def require_memory(source: str, images: int, channels: int, height: int, width: int, advice: str) -> None:
    """Check that the machine has memory for images in float32.

    Args:
        source: what holds the images, for the message.
        advice: what to do, for the message.

    Raises:
        InputError: they need more than the machine has.
    """
    needed, memory = 4 * images * channels * height * width, machine_memory()
    if memory is not None and needed > memory:
        raise InputError(
            f"{source}: {images:,} images of {width} x {height} pixels need {needed / 2**30:,.1f} GiB of memory in float32, "
            f"and this machine has {memory / 2**30:,.1f} GiB; {advice}"
        )
