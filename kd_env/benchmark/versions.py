"""Versions of Python and of the packages that results depend on. Records contain them; a checkpoint is used only with the same versions."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    names = ("kd-env", "torch", "numpy", "gymnasium", "stable-baselines3", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
