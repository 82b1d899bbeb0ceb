"""Find the residual blocks of a network, and put blocks of another network in their place during a forward pass.

In: a network and a teacher's network. Out: for each block of the network, the teacher's blocks that do its part.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.models.convolutional.resnet import ResNet
from kd_env.models.convolutional.wide_resnet import WideResNet
from kd_env.models.encoder import Encoder
from kd_env.models.modes import evaluation_mode
from kd_env.models.wrapper import unwrap
from kd_env.types import Inputs


class BlockIndex(NamedTuple):
    """Where a block stands in a network: a stage, and its number there."""

    stage: int
    block: int


class Blocks(nn.Module):
    """Some blocks of a teacher in a row, which stay as they are and in evaluation mode. A gradient passes through them."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        """Copy ``blocks``."""
        super().__init__()
        self.blocks = nn.ModuleList(copy.deepcopy(block) for block in blocks)
        self.eval().requires_grad_(False)

    def forward(self, hidden: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Return the output of the last block; all blocks have the same further arguments."""
        for block in self.blocks:
            hidden = block(hidden, *arguments, **options)
        return hidden


def stages(network: nn.Module) -> list[nn.Sequential | nn.ModuleList]:
    """Return the stages of a network, each with its blocks; of an encoder the only one, with its layers. Others have none."""
    network = unwrap(network)
    if isinstance(network, ResNet | WideResNet):
        return [network.stage1, network.stage2, network.stage3]
    if isinstance(network, Encoder):
        lists = [module for module in network.model.modules() if isinstance(module, nn.ModuleList)]
        return [max(lists, key=len)] if lists else []
    return []


def matching_blocks(student: nn.Module, teacher: nn.Module, example: Inputs, names: tuple[str, str]) -> dict[BlockIndex, Blocks]:
    """Return the teacher's blocks for each block of the student, on the student's device and in its type.

    The n blocks of a stage stand for the m >= n of the teacher's in equal parts, in order: student block i for the teacher's blocks from
    ``i m // n`` up to ``(i + 1) m // n``.

    Args:
        student: network of the student.
        teacher: network of the teacher.
        example: one row of encoded inputs on the student's device, to compare the shapes of the blocks' outputs.
        names: names of student and teacher, for errors.

    Raises:
        InputError: the networks have blocks of different kinds or shapes, or the teacher has fewer.
    """
    own, others = stages(student), stages(teacher)
    prefix = f"block_swap: student {names[0]!r} and teacher {names[1]!r}"
    kinds = {type(stage[0]) for stage in (*own, *others)}
    if not own or len(own) != len(others) or len(kinds) > 1:
        raise InputError(f"{prefix} have no blocks of one kind; use two resnets, two wrn, or two encoders of one architecture")
    parameter, matching = next(student.parameters()), {}
    for number, (stage, other) in enumerate(zip(own, others, strict=True)):
        size, count = len(stage), len(other)
        if count < size:
            raise InputError(f"{prefix}: the teacher has {count} blocks in stage {number + 1} and the student {size}; use a deeper teacher")
        for block in range(size):
            part = [other[index] for index in range(block * count // size, (block + 1) * count // size)]
            matching[BlockIndex(number, block)] = Blocks(part).to(parameter.device, parameter.dtype)
    _require_same_shapes(student, matching, example, prefix)
    return matching


@contextmanager
def swapped(network: nn.Module, blocks: Mapping[BlockIndex, nn.Module]) -> Iterator[None]:
    """Run ``blocks`` in the places of the network's own in each forward pass inside the context.

    They take the places when a pass begins and leave them when it ends, so that parameters and their names never change.
    """
    containers, own = stages(network), {index: stages(network)[index.stage][index.block] for index in blocks}

    def put(modules: Mapping[BlockIndex, nn.Module]) -> None:
        for index, module in modules.items():
            containers[index.stage][index.block] = module

    with ExitStack() as stack:
        stack.callback(network.register_forward_hook(lambda *_: put(own), always_call=True).remove)
        stack.callback(network.register_forward_pre_hook(lambda *_: put(blocks)).remove)
        yield


def _require_same_shapes(student: nn.Module, blocks: Mapping[BlockIndex, Blocks], example: Inputs, prefix: str) -> None:
    """Check that a teacher's blocks return outputs of the same shape as the student's for the same inputs."""
    calls: dict[BlockIndex, tuple[Any, Any, Tensor]] = {}

    def keep(index: BlockIndex, arguments: Any, options: Any, output: Any) -> None:
        calls[index] = arguments, options, output

    containers = stages(student)
    with ExitStack() as stack, torch.no_grad(), evaluation_mode(student):
        for index in blocks:
            block = containers[index.stage][index.block]
            hook = block.register_forward_hook(
                lambda _module, arguments, options, output, index=index: keep(index, arguments, options, output), with_kwargs=True
            )
            stack.callback(hook.remove)
        student(**example)
        for index, (arguments, options, output) in calls.items():
            try:
                shape = blocks[index](*arguments, **options).shape
            except RuntimeError:  # torch's error for operands that do not fit
                shape = None
            if shape != output.shape:
                raise InputError(f"{prefix} have blocks of other widths in stage {index.stage + 1}; use networks of equal widths")
