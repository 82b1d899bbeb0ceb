"""Randomness: every draw comes from a seed and says what it is for, so that no two purposes share a stream.

Also torch's global generators, which module dropout draws from: read them, set them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Purpose = Literal["order", "labels", "measurement", "gradient", "reward_ce", "batches"]
_PURPOSES: tuple[Purpose, ...] = ("order", "labels", "measurement", "gradient", "reward_ce", "batches")


def stream(seed: int, purpose: Purpose, number: int = 0) -> np.random.Generator:
    """The generator of one draw; another seed, purpose or number is another stream."""
    return np.random.default_rng([seed, _PURPOSES.index(purpose), number, 1])  # NumPy drops trailing zeros: the 1 keeps them apart


def fresh_states(seed: int, device: torch.device) -> list[Tensor]:
    """States of newly seeded torch generators: the CPU's, and CUDA's where ``device`` is one."""
    devices = [torch.device("cpu")] + ([device] if device.type == "cuda" else [])
    return [torch.Generator(one).manual_seed(seed).get_state() for one in devices]


def states(device: torch.device) -> list[Tensor]:
    """States of torch's global generators."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def set_states(values: list[Tensor], device: torch.device) -> None:
    """Set torch's global generators."""
    torch.set_rng_state(values[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(values[1], device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global CPU generator drawn from ``seed`` within, as it was without; CUDA's is not touched."""
    outer = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(outer)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums over several differ in their last bits, and small models are slower on them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
