"""Check the seed and the options of ``reset``, as Gymnasium allows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_env.errors import InputError

MAX_SEED = 2**62
"""Seeds of students are kept as int64, and a policy that learns over several students adds to them."""


def checked_seed(seed: Any) -> int | None:
    """Return a seed as a Python integer.

    Raises:
        InputError: it is neither ``None`` nor an integer from 0 to 2 ** 62, of Python or NumPy.
    """
    if seed is None:
        return None
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise InputError(f"reset(seed={seed!r}): expected None or a whole number from 0 to 2 ** 62")
    return int(seed)


def checked_options(options: Any) -> Mapping[str, Any]:
    """Return the options of ``reset``, empty for ``None``.

    Raises:
        InputError: they are no dict.
    """
    if options is not None and not isinstance(options, Mapping):
        raise InputError(f"reset(options={options!r}): expected None or a dict, got a {type(options).__name__}")
    return options or {}
