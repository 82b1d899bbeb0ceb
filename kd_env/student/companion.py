"""A module that learns beside a student: the parameters of a policy that the student's own gradient trains.

In: a network, and a companion named ``module:Class``. Out: a network whose ``ModelOutput.companion`` is what the companion says of the
mini-batch, differentiable. Its parameters join the student's optimizer, snapshot and population, and are left behind when it is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.student.projected import Beside
from kd_env.tasks import resolve
from kd_env.types import ModelOutput


class Companion(Protocol):
    """Built as ``C(width, widths, num_terms, **options)``: the student's D, the teachers' D_k, and M; an ``nn.Module``."""

    def __call__(self, output: ModelOutput) -> Tensor:
        """What it says of the mini-batch, ``[B, ...]``, row by row."""
        ...


class Accompanied(Beside):
    """A network and its companion."""

    def __init__(self, network: nn.Module, companion: nn.Module) -> None:
        """Keep both."""
        super().__init__(network)
        self.companion = companion

    def add(self, output: ModelOutput) -> ModelOutput:
        """What the companion says of it."""
        return output._replace(companion=self.companion(output))


def make(text: str, width: int, widths: Sequence[int], num_terms: int) -> nn.Module:
    """The companion that ``text`` names, ``module:Class(options)``; draws from torch's global generator.

    Raises:
        InputError: there is none, or it is no module.
    """
    name, options = spec.parse(text)
    made = spec.call_plugin(f"companion {text!r}", resolve(name, "companion"), options, width, list(widths), num_terms)
    if not isinstance(made, nn.Module):
        raise InputError(f"companion {text!r}: a {type(made).__name__} is no torch.nn.Module; derive it from that")
    return made
