"""Serialise tensors and JSON as self-contained bytes, in the safetensors format and without pickle. And read and write files of tensors.

Both carry a checksum, which is checked when they are read. :func:`pack` turns nested values into tensors and JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kd_env.errors import InputError
from kd_env.paths import naming


class OtherRunError(InputError):
    """Raised for a snapshot that is whole, but of another task, pool or settings."""


def to_bytes(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> bytes:
    """Serialise named tensors and a state that JSON can hold; ``state["identity"]`` says which run they belong to.

    The state also carries a checksum of both, so that :func:`from_bytes` sees any change, and the names of tensors that have their channels
    last: with another order in memory, sums would round differently.
    """
    channels_last = sorted(name for name, tensor in tensors.items() if _has_channels_last(tensor))
    content = {**state, "channels_last": channels_last}
    text = torch.frombuffer(bytearray(json.dumps({**content, "checksum": checksum(tensors, content)}).encode()), dtype=torch.uint8)
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in {**tensors, "state": text}.items()}))


def from_bytes(
    snapshot: bytes, identity: Mapping[str, Any], place: str = "restore", fix: str = "give what snapshot() returned"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the state that :func:`to_bytes` wrote, if the state has the same ``identity``.

    Args:
        place: where the bytes come from, for messages.
        fix: what to do if they cannot be used, for messages.

    Raises:
        InputError: the bytes are not a snapshot, or they have changed since it was made.
        OtherRunError: it is one of another task, pool or settings.
    """
    try:
        tensors = load(snapshot)
        state: dict[str, Any] = json.loads(tensors.pop("state").numpy().tobytes())
        saved_identity = dict(state["identity"])
        saved_checksum = state.pop("checksum", None)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{place}: these bytes are not a snapshot; {fix}") from None
    if saved_checksum is None:
        raise InputError(f"{place}: the snapshot has no checksum, so it is of an older version; make it again")
    if saved_checksum != checksum(tensors, state):
        raise InputError(f"{place}: the snapshot has changed since it was made (its checksum differs); {fix}")
    if saved_identity != identity:
        names = {*saved_identity, *identity}
        differences = sorted(name for name in names if saved_identity.get(name) != identity.get(name))
        raise OtherRunError(f"{place}: the snapshot is of another run; these differ: {', '.join(differences)}")
    for name in state.pop("channels_last", []):
        tensors[name] = torch.empty_like(tensors[name], memory_format=torch.channels_last).copy_(tensors[name])
    return tensors, state


def _has_channels_last(tensor: Tensor) -> bool:
    """Return whether the strides are those of channels_last. Where a side is 1, ``is_contiguous`` is true of several strides."""
    if tensor.ndim != 4:
        return False
    _, channels, height, width = tensor.shape
    return tensor.stride() == (channels * height * width, 1, channels * width, channels)


def checksum(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the names, types, shapes and values of tensors, and of a state that JSON can hold."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"|{name}:{tensor.dtype}:{tuple(tensor.shape)}|".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a file, completely or not at all. The caller holds the lock."""
    partial = path.with_suffix(".partial")
    try:
        with naming(path):
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            partial.write_bytes(save(contiguous, {"checksum": checksum(tensors, {})}))
            partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a file, or ``None`` if there is none or it has changed since :func:`write_tensors`.

    A file without a checksum, of an older version, is taken as it is.

    Raises:
        OSError: the file cannot be read at the moment; that says nothing about its content.
    """
    try:
        with naming(path):
            content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError):
        return None
    expected = header.get("__metadata__", {}).get("checksum")
    return tensors if expected in (None, checksum(tensors, {})) else None


def add_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors with ``prefix.`` before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix.``, by the rest of their names."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` in a form that JSON can store; add its tensors and arrays to ``tensors`` under new names.

    Args:
        value: dicts, lists and tuples, at any depth, of tensors, arrays, bytes, numbers, text and ``None``.
    """
    name = str(len(tensors))
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(value, order="C"))
        return {"array": name}
    if isinstance(value, bytes):
        return {"bytes": pack(np.frombuffer(value, np.uint8), tensors)}
    if isinstance(value, dict):
        return {"dict": [[key, pack(part, tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [pack(part, tensors) for part in value]}
    return value.item() if isinstance(value, np.generic) else value


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the original value of what :func:`pack` returned."""
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind in ("tensor", "array"):
        return tensors[content].numpy() if kind == "array" else tensors[content]
    if kind == "bytes":
        return unpack(content, tensors).tobytes()
    if kind == "dict":
        return {key: unpack(part, tensors) for key, part in content}
    parts = [unpack(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts


def json_value(value: Any) -> Any:
    """Convert a value to JSON's types: NumPy values become Python values, and a float that is not finite becomes null."""
    if isinstance(value, (np.ndarray, np.generic)):
        return json_value(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
