"""Add a module that learns with a student: parameters of a policy that the gradient of the student's loss trains.

In: a network, and a module named ``module:Class``. Out: a network with the module's output for the mini-batch, ``[B, ...]`` and
differentiable, in ``ModelOutput.auxiliary``. The row of an example must depend on that example alone. The module's parameters are part of
the student's optimizer, snapshot and population. They are left out when the student is saved.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress

from torch import nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.wrapper import NetworkWrapper
from kd_env.plugins import faults_in, resolve
from kd_env.types import ModelOutput


class WithAuxiliaryModule(NetworkWrapper):
    """A network with an auxiliary module."""

    def __init__(self, network: nn.Module, auxiliary_module: nn.Module) -> None:
        """Wrap ``network``."""
        super().__init__(network)
        self.auxiliary_module = auxiliary_module

    def extend(self, output: ModelOutput) -> ModelOutput:
        """Return ``output`` with the auxiliary module's output added."""
        with faults_in("auxiliary module", type(self.auxiliary_module)):
            return output._replace(auxiliary=self.auxiliary_module(output))


def build(text: str, width: int, widths: Sequence[int], num_terms: int, num_classes: int) -> nn.Module:
    """Build the auxiliary module ``text``, ``module:Class(options)``. Its weights are drawn from torch's global generator.

    The constructor is ``Class(width, widths, num_terms, **options)``, and gets ``num_classes`` too if it has a parameter of this name.

    Args:
        text: the module's name and options.
        width: width D of the student's features.
        widths: widths D_k of the teachers' features.
        num_terms: number of knowledge types M.
        num_classes: number of classes C.

    Raises:
        InputError: the module cannot be imported or built, or it is not a ``torch.nn.Module``.
    """
    name, options = spec.parse(text)
    constructor = resolve(name, "auxiliary_module")
    with suppress(TypeError, ValueError):  # it has no signature: the call below raises the error
        if "num_classes" in inspect.signature(constructor).parameters:
            options = {**options, "num_classes": num_classes}
    module = spec.call_plugin(f"auxiliary_module {text!r}", constructor, options, width, list(widths), num_terms)
    if not isinstance(module, nn.Module):
        raise InputError(f"auxiliary_module {text!r}: a {type(module).__name__} is not a torch.nn.Module; subclass it")
    return module
