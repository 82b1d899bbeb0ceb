"""Agents in files. A loaded agent continues bit for bit where the saved one stopped.

In: an agent with ``options``, which its class is built with, and ``state()``: dicts, lists and tuples, at any depth, of tensors, arrays,
numbers, text and ``None``. Out: one safetensors file. Tensors and arrays are stored as its tensors, the rest as JSON in its header; there
is no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kd_env.errors import InputError
from kd_env.policies import PolicyContext


class Saveable(Protocol):
    """An agent that can be saved between two updates."""

    options: dict[str, Any]

    def state(self) -> dict[str, Any]:
        """Return all that changes while the agent acts and learns."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        ...


Agent = TypeVar("Agent", bound=Saveable)


def save(path: str, agent: Saveable) -> None:
    """Write ``agent`` to ``path``."""
    tensors: dict[str, Tensor] = {}
    content = {"agent": type(agent).__name__, "options": agent.options, "state": _pack(agent.state(), tensors)}
    save_file(tensors, path, {"agent": json.dumps(content)})


def load(path: str, kind: Callable[..., Agent], context: PolicyContext) -> Agent:
    """Read an agent of the class ``kind``.

    Raises:
        InputError: the file is missing, or holds no agent of this class.
    """
    try:
        with safe_open(path, "pt") as file:
            content = json.loads(file.metadata()["agent"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError):
        raise InputError(f"{path}: not a saved agent; name a file that an agent's save(path) wrote") from None
    if content["agent"] != kind.__name__:
        raise InputError(f"{path}: holds a {content['agent']}, not a {kind.__name__}; load it with {content['agent']}.load")
    agent = kind(context, **content["options"])
    agent.load_state(_unpack(content["state"], tensors))
    return agent


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` as JSON can hold it; its tensors and arrays go into ``tensors``."""
    if isinstance(value, Tensor | np.ndarray):
        name = str(len(tensors))
        tensors[name] = (torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach().cpu()).clone().contiguous()
        return {"array" if isinstance(value, np.ndarray) else "tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(part, tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_pack(part, tensors) for part in value]}
    return value.item() if isinstance(value, np.generic) else value


def _unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value that :func:`_pack` was given."""
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind in ("tensor", "array"):
        return tensors[content].numpy() if kind == "array" else tensors[content]
    if kind == "dict":
        return {key: _unpack(part, tensors) for key, part in content}
    parts = [_unpack(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
