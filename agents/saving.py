"""Agents in files. A loaded agent continues bit for bit where the saved one stopped.

In: an agent with ``options``, which its class is built with, and ``state()``: dicts, lists and tuples, at any depth, of tensors, arrays,
numbers, text and ``None``. Out: one safetensors file. Tensors and arrays are stored as its tensors, the rest as JSON in its header, with a
checksum of both; there is no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kd_env.errors import InputError
from kd_env.policies import PolicyContext
from kd_env.serialization import checksum, pack, unpack


@runtime_checkable
class Stateful(Protocol):
    """An agent or a rule that changes while it acts and learns."""

    def state(self) -> dict[str, Any]:
        """Return all that changes."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        ...


class Saveable(Stateful, Protocol):
    """An agent that can be saved between two updates."""

    options: dict[str, Any]


class SavedAgent:
    """Gives an agent with ``options``, ``state`` and ``load_state`` the methods :meth:`save` and :meth:`load`."""

    def save(self: Saveable, path: str) -> None:
        """Write the agent to a file."""
        save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent. If the class has ``any_pool``, the pool may have other numbers of teachers and classes than where it learned."""
        agent: Self = load(path, cls, context)  # type: ignore[type-var]
        return agent


Agent = TypeVar("Agent", bound=Saveable)


def save(path: str, agent: Saveable) -> None:
    """Write ``agent`` to ``path``."""
    tensors: dict[str, Tensor] = {}
    content = {"agent": type(agent).__name__, "options": agent.options, "state": pack(agent.state(), tensors)}
    metadata = {"agent": json.dumps({**content, "checksum": checksum(tensors, content)})}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)


def load(path: str, agent_class: Callable[..., Agent], context: PolicyContext) -> Agent:
    """Read an agent of the class ``agent_class``.

    Raises:
        InputError: the file is missing, or holds no agent of this class.
    """
    try:
        with safe_open(path, "pt") as file:
            content = json.loads(file.metadata()["agent"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not a saved agent; name a file that an agent's save(path) wrote") from None
    if content.pop("checksum", None) not in (None, checksum(tensors, content)):  # a file of an older version has none
        raise InputError(f"{path}: the agent has changed since it was saved (its checksum differs); save it again")
    if content["agent"] != agent_class.__name__:
        raise InputError(f"{path}: holds a {content['agent']}, not a {agent_class.__name__}; load it with {content['agent']}.load")
    agent = agent_class(context, **content["options"])
    agent.load_state(unpack(content["state"], tensors))
    return agent
