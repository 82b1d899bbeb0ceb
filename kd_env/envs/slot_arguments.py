"""Arguments of ``gymnasium.make_vec``. In: what a user gives. Out: a batch size, a mode, or an error that says how to fix it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from kd_env.errors import InputError

MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP, "disabled": AutoresetMode.DISABLED}


def checked_count(name: str, value: Any) -> int:
    """Return a number of slots or steps as a Python integer.

    Raises:
        InputError: it is no integer of at least 1, of Python or NumPy.
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
    if not isinstance(students, int) or students < 1 or num_envs % students:
        raise InputError(f"num_envs={num_envs} slots are not num_students={students} whole mini-batches; use a multiple of num_students")
    if batch_size not in (None, num_envs // students):
        mini_batch = f"mini-batches of {num_envs // students}" if students > 1 else "one mini-batch"
        raise InputError(f"num_envs={num_envs} slots are {mini_batch}, but batch_size={batch_size}; leave out one of them")
    return num_envs // students


def checked_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """Return the mode of that name.

    Raises:
        InputError: there is none.
    """
    try:
        return mode if isinstance(mode, AutoresetMode) else MODES[mode]
    except (KeyError, TypeError):
        raise InputError(f"autoreset_mode={mode!r}: expected {', '.join(MODES)}") from None
