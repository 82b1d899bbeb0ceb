"""A module that learns beside a student: parameters of a policy that the student's own gradient trains.

In: a network, and a module named ``module:Class``. Out: a network whose ``ModelOutput.auxiliary`` is the module's output for the
mini-batch, differentiable. Its parameters join the student's optimizer, snapshot and population, and are left out when the student is
saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.wrapper import NetworkWrapper
from kd_env.plugins import resolve
from kd_env.types import ModelOutput


class AuxiliaryModule(Protocol):
    """A ``torch.nn.Module`` built as ``C(width, widths, num_terms, **options)``: the student's D, the teachers' D_k, and M."""

    def __call__(self, output: ModelOutput) -> Tensor:
        """Compute its output for the mini-batch, ``[B, ...]``; an example's row depends on that example alone."""
        ...


class WithAuxiliaryModule(NetworkWrapper):
    """A network and its auxiliary module."""

    def __init__(self, network: nn.Module, auxiliary_module: nn.Module) -> None:
        """Wrap ``network``."""
        super().__init__(network)
        self.auxiliary_module = auxiliary_module

    def extend(self, output: ModelOutput) -> ModelOutput:
        """Add the module's output."""
        return output._replace(auxiliary=self.auxiliary_module(output))


def build(text: str, width: int, widths: Sequence[int], num_terms: int) -> nn.Module:
    """Build the auxiliary module that ``text`` names, ``module:Class(options)``; draws from torch's global generator.

    Raises:
        InputError: it cannot be imported or built, or it is no module.
    """
    name, options = spec.parse(text)
    module = spec.call_plugin(f"auxiliary_module {text!r}", resolve(name, "auxiliary_module"), options, width, list(widths), num_terms)
    if not isinstance(module, nn.Module):
        raise InputError(f"auxiliary_module {text!r}: a {type(module).__name__} is no torch.nn.Module; derive it from that")
    return module
