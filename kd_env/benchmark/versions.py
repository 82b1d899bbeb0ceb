"""List what results depend on besides the trial: versions and the processor. Records contain both.

A checkpoint is used only with the same versions. Processors of different kinds round differently, so a record is made again bit for bit
only on the kind of processor that made it.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    names = ("kd-env", "torch", "numpy", "gymnasium", "stable-baselines3", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


@functools.cache
def processor() -> str:
    """Return the kind of processor and its instruction set, such as ``Intel(R) Xeon(R) Processor, AVX512``."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def other_processor(recorded: Mapping[str, str]) -> str:
    """Return a sentence if a record with the versions ``recorded`` is of another processor, which rounds differently; else ``""``."""
    recorded_processor = recorded.get("processor")
    if recorded_processor == processor():
        return ""
    origin = f"was made on {recorded_processor}" if recorded_processor else "does not name its processor"
    return f"the record {origin}, this is {processor()}, and other processors round differently (see --tolerance)"


def explained(differences: list[str], recorded: Mapping[str, str]) -> list[str]:
    """Return the differences from a record with the versions ``recorded``; the first line is the likely reason if its processor differs."""
    reason = other_processor(recorded)
    return [reason, *differences] if differences and reason else differences
