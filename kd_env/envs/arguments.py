"""Check arguments of ``gymnasium.make``, ``make_vec`` and ``reset``. In: what a user gives. Out: its value, or an error with the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from kd_env.errors import InputError
from kd_env.spec import one_of

MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP, "disabled": AutoresetMode.DISABLED}
RENDER_MODES = ("rgb_array", "ansi")
MAX_SEED = 2**62
"""Seeds of students are kept as int64, and a policy that learns over several students adds to them."""


def is_minimal(info: str) -> bool:
    """Return whether ``info`` asks for the ``minimal`` entries.

    Raises:
        InputError: it is neither ``full`` nor ``minimal``.
    """
    one_of("make", "full", "minimal", info=info)
    return info == "minimal"


def checked_render_mode(mode: str | None) -> str | None:
    """Return a render mode.

    Raises:
        InputError: it is neither ``None`` nor one of :data:`RENDER_MODES`.
    """
    if mode is not None and mode not in RENDER_MODES:
        raise InputError(f"render_mode={mode!r}: expected {' or '.join(RENDER_MODES)}")
    return mode


def checked_count(name: str, value: Any) -> int:
    """Return a number of slots or steps as a Python integer.

    Raises:
        InputError: it is not an integer of at least 1, of Python or NumPy.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}={value!r}: expected a whole number of at least 1")
    return int(value)


def whole_batch_size(num_envs: int, settings: Mapping[str, Any]) -> int:
    """Return the batch size B of ``num_envs = num_students * B`` instance slots.

    Raises:
        InputError: the slots are not whole mini-batches, or ``settings`` names another batch size.
    """
    students, batch_size = settings.get("num_students") or 1, settings.get("batch_size")
    if not isinstance(students, int | np.integer) or students < 1 or num_envs % students:
        raise InputError(f"num_envs={num_envs} slots are not num_students={students} whole mini-batches; use a multiple of num_students")
    if batch_size not in (None, num_envs // students):
        mini_batch = f"mini-batches of {num_envs // students}" if students > 1 else "one mini-batch"
        raise InputError(f"num_envs={num_envs} slots are {mini_batch}, but batch_size={batch_size}; leave out one of them")
    return int(num_envs // students)


def checked_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """Return the mode of that name.

    Raises:
        InputError: there is none.
    """
    try:
        return mode if isinstance(mode, AutoresetMode) else MODES[mode]
    except (KeyError, TypeError):
        raise InputError(f"autoreset_mode={mode!r}: expected {', '.join(MODES)}") from None


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


def checked_options(options: Any, known: Sequence[str] | None = None) -> Mapping[str, Any]:
    """Return the options of ``reset``, empty for ``None``. Without ``known``, any options are accepted.

    Raises:
        InputError: they are no dict, or one of them is unknown.
    """
    if options is not None and not isinstance(options, Mapping):
        raise InputError(f"reset(options={options!r}): expected None or a dict, got a {type(options).__name__}")
    if known is not None and (others := [str(name) for name in (options or {}) if name not in known]):
        raise InputError(f"reset(options=...): unknown {', '.join(others)}; known is {', '.join(known)}")
    return options or {}
