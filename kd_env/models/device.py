"""Choose the device that a network runs on. In: the setting ``device``. Out: a torch device."""

from __future__ import annotations

import torch

from kd_env.errors import InputError


def pick_device(name: str) -> torch.device:
    """Return the device ``name``; ``auto`` is CUDA if it is available, else the CPU.

    Raises:
        InputError: torch does not know the device, or it is not available on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device={name!r}: expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(f"device={name!r} is not available here; use device=auto or cpu")
    return device
