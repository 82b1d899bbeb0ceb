"""Snapshots: tensors and a little JSON as self-contained bytes, without pickle (safetensors)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kd_env.errors import InputError


def to_bytes(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> bytes:
    """Tensors by name, and what JSON can hold."""
    text = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in {**tensors, "state": text}.items()}))


def from_bytes(snapshot: bytes, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`to_bytes` was given, if its state says the same ``identity``.

    Raises:
        InputError: not a snapshot, or one of another task, pool or settings.
    """
    try:
        tensors = load(snapshot)
        state: dict[str, Any] = json.loads(tensors.pop("state").numpy().tobytes())
        found = dict(state["identity"])
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise InputError("restore: these bytes are not a snapshot; give what snapshot() returned") from None
    if found != identity:
        differs = sorted({key for key in {*found, *identity} if found.get(key) != identity.get(key)})
        raise InputError(f"restore: the snapshot is of another run; these differ: {', '.join(differs)}")
    return tensors, state


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named ``prefix.NAME``, by NAME."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
