"""A module that learns beside a student: the parameters of a policy that the student's own gradient trains.

In: a network, and a module named ``module:Class``. Out: a network whose ``ModelOutput.auxiliary_module`` is the output for the
mini-batch, differentiable. Its parameters join the optimizer, snapshot and population, and are left out when the student is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.knowledge.projectors import NetworkWrapper
from kd_env.plugins import resolve
from kd_env.types import ModelOutput


class AuxiliaryModule(Protocol):
    """Built as ``C(width, widths, num_terms, **options)``: the student's D, the teachers' D_k, and M; an ``nn.Module``."""

    def __call__(self, output: ModelOutput) -> Tensor:
        """What it says of the mini-batch, ``[B, ...]``, row by row."""
        ...


class WithAuxiliaryModule(NetworkWrapper):
    """A network and its auxiliary_module."""

    def __init__(self, network: nn.Module, auxiliary_module: nn.Module) -> None:
        """Keep both."""
        super().__init__(network)
        self.auxiliary_module = auxiliary_module

    def add(self, output: ModelOutput) -> ModelOutput:
        """What the auxiliary_module says of it."""
        return output._replace(auxiliary_module=self.auxiliary_module(output))


def make(text: str, width: int, widths: Sequence[int], num_terms: int) -> nn.Module:
    """The auxiliary_module that ``text`` names, ``module:Class(options)``; draws from torch's global generator.

    Raises:
        InputError: there is none, or it is no module.
    """
    name, options = spec.parse(text)
    made = spec.call_plugin(f"auxiliary_module {text!r}", resolve(name, "auxiliary_module"), options, width, list(widths), num_terms)
    if not isinstance(made, nn.Module):
        raise InputError(f"auxiliary_module {text!r}: a {type(made).__name__} is no torch.nn.Module; derive it from that")
    return made
