"""Share the passes of one student among processes. In: a network and the rows of a mini-batch. Out: outputs for all rows, in each process.

All processes run the same program with the same seeds (SPMD). In a pass, each runs the network on its part of the rows, and all get all
outputs. A gradient flows back through a process's own rows; where it reaches the parameters, it is summed over the processes. So a loss of
all outputs has, in every process, the gradient that it has in a single process, up to rounding. Losses, policies and optimizer steps are
computed by every process, with equal results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from kd_env import randomness
from kd_env.errors import InputError
from kd_env.types import Inputs, ModelOutput

Run = Callable[[Inputs], ModelOutput]
"""Runs a network on encoded inputs, ``[B, ...]``."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a student.

    Attributes:
        rank: number of this process.
        count: number of processes.
    """

    rank: int
    count: int

    def require_splittable(self, network: nn.Module, num_students: int) -> None:
        """Check that the passes of a student can be split.

        Raises:
            InputError: there are several students, or the rows of a mini-batch affect each other, as in BatchNorm.
        """
        place = f"{self.count} processes share one student"
        if num_students > 1:
            raise InputError(f"{place}: {num_students} students cannot be taught at once; leave population and peers out")
        if any(isinstance(module, nn.modules.batchnorm._NormBase) for module in network.modules()):
            raise InputError(
                f"{place}: it has BatchNorm, whose statistics are of the whole mini-batch; use one with LayerNorm or GroupNorm"
            )

    def forward(self, run: Run, inputs: Inputs, draws: torch.device | None = None) -> ModelOutput:
        """Return the outputs of ``run`` for all rows; this process runs a part of them.

        Args:
            run: runs the network, with :meth:`summed` parameters if its gradient is needed.
            inputs: encoded inputs of all rows, equal in all processes.
            draws: device on which ``run`` draws random numbers, as for dropout; ``None`` if it draws none. Each part has its own draws.
        """
        rows = len(next(iter(inputs.values())))
        output = self._part(run, inputs, self.rank, None if draws is None else (_seed(), draws))
        return output.map(lambda tensor: _Gather.apply(tensor, self.rank, self.count)[:rows])  # type: ignore[no-untyped-call]

    def forward_alone(self, run: Run, inputs: Inputs, draws: torch.device) -> ModelOutput:
        """Return the outputs of ``run`` for all rows, with the draws of :meth:`forward`. This process runs all parts in turn."""
        rows, seed = len(next(iter(inputs.values()))), _seed()
        parts = [self._part(run, inputs, rank, (seed, draws)) for rank in range(self.count)]
        columns = zip(*map(_tensors, parts), strict=True)
        return parts[0].map(lambda _: torch.cat(next(columns))[:rows])

    def summed(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return parameters with gradients that are summed over the processes."""
        return dict(zip(parameters, _SumGradients.apply(*parameters.values()), strict=True))  # type: ignore[no-untyped-call]

    def _part(self, run: Run, inputs: Inputs, rank: int, draws: tuple[int, torch.device] | None) -> ModelOutput:
        """Run one of ``count`` equal parts of the rows; where they do not divide, the last row is repeated."""
        rows = len(next(iter(inputs.values())))
        size = -(-rows // self.count)
        index = torch.arange(rank * size, (rank + 1) * size).clamp_max(rows - 1)
        part = {name: tensor[index.to(tensor.device)] for name, tensor in inputs.items()}
        if draws is None:
            return run(part)
        seed, device = draws
        outer = randomness.states(device)
        randomness.set_states(randomness.fresh_states(seed + rank, device), device)
        try:
            return run(part)
        finally:
            randomness.set_states(outer, device)


def current_processes() -> Processes | None:
    """Return the processes that this one has joined, ``None`` if it runs alone."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return None
    return Processes(distributed.get_rank(), distributed.get_world_size())


class _Gather(torch.autograd.Function):
    """Concatenate the rows of all processes. Each process keeps the gradient of its own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, count: int) -> Tensor:
        ctx.part = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.part], None, None


class _SumGradients(torch.autograd.Function):
    """Return tensors as they are; sum their gradients over the processes, all at once."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        return tuple(part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True))


def _tensors(output: ModelOutput) -> list[Tensor]:
    """Return the tensors of an output, in the order of :meth:`~kd_env.types.ModelOutput.map`."""
    tensors: list[Tensor] = []

    def add(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    output.map(add)
    return tensors


def _seed() -> int:
    """Draw a seed from torch's global generator, whose state is equal in all processes."""
    return int(torch.randint(2**62, ()))
