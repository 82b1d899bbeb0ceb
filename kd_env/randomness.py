"""Make results repeatable: NumPy streams by seed and purpose, the state of torch's global generators, and threads.

Every draw comes from a seed and names its purpose, so that no two purposes share a stream. Module dropout draws from torch's global
generators, whose state is read and set here.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Purpose = Literal["order", "labels", "measurement", "gradient", "reward_ce", "batches", "augmentation", "exam", "swap"]
_deterministic: Any = torch.utils.deterministic  # has no type hints
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""Environment variable that cuBLAS reads when it starts, and a value with which it repeats its results."""
_PURPOSES: tuple[Purpose, ...] = typing.get_args(Purpose)


def stream(seed: int, purpose: Purpose, number: int = 0) -> np.random.Generator:
    """Return the generator of one draw; another seed, purpose or number gives an independent stream."""
    return np.random.default_rng([seed, _PURPOSES.index(purpose), number, 1])  # NumPy drops trailing zeros: the 1 keeps them apart


def fresh_states(seed: int, device: torch.device) -> list[Tensor]:
    """Return the states of newly seeded torch generators: one for the CPU, and one for ``device`` if it is a CUDA device."""
    devices = [torch.device("cpu")] + ([device] if device.type == "cuda" else [])
    return [torch.Generator(generator_device).manual_seed(seed).get_state() for generator_device in devices]


def states(device: torch.device) -> list[Tensor]:
    """Return the states of torch's global generators, in the order of :func:`fresh_states`."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def set_states(values: list[Tensor], device: torch.device) -> None:
    """Set torch's global generators to ``values``, in the order of :func:`states`."""
    torch.set_rng_state(values[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(values[1], device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and restore it afterwards; CUDA generators are not touched."""
    outer = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(outer)


def make_reproducible() -> None:
    """Make torch repeat its results to the last bit: one thread, and on CUDA deterministic algorithms where they exist.

    Several threads change the last bits of sums, and slow small models down. A CUDA operation without a deterministic algorithm warns.
    Call this before CUDA is first used: cuBLAS reads the environment variable :data:`CUBLAS_WORKSPACE` when it starts.
    """
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        os.environ.setdefault(*CUBLAS_WORKSPACE)
        torch.set_deterministic_debug_mode("warn")  # the same as use_deterministic_algorithms, which loads torch's compiler: a second
        _deterministic.fill_uninitialized_memory = False  # it looks for faults in programs, and costs time


@contextmanager
def reproducible() -> Iterator[None]:
    """Call :func:`make_reproducible` for the block, and restore torch's settings afterwards; the environment variable stays."""
    threads, filled = torch.get_num_threads(), _deterministic.fill_uninitialized_memory
    debug_mode = torch.get_deterministic_debug_mode()
    make_reproducible()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(debug_mode)
        _deterministic.fill_uninitialized_memory = filled
