"""A convolution that is safe in ``channels_last``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

BLOCK = 16
"""Number of channels that oneDNN computes at once."""


class Convolution(nn.Conv2d):
    """A convolution. With a kernel of 1x1 and a stride, it reads only the pixels that it uses.

    Values and gradients are those of ``nn.Conv2d``. That one has a fault on a CPU (oneDNN issue 6035): with fewer than 16 input channels,
    and weights in ``channels_last``, its backward pass writes past its memory. With images of 64 x 64 pixels, this ends the process.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if has_strided_pixels(self):
            rows, columns = self.stride
            return conv2d(input[:, :, ::rows, ::columns], weight, bias, groups=self.groups)
        outputs: Tensor = super()._conv_forward(input, weight, bias)
        return outputs


def has_strided_pixels(layer: nn.Conv2d) -> bool:
    """Return whether the kernel is 1x1 and skips pixels."""
    return layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.padding in ((0, 0), "valid")


def in_channels_last(network: nn.Module) -> None:
    """Store the weights of convolutions with the channels last, with which convolutions on a CPU take less time.

    A network of another library that has the fault of :class:`Convolution` is left as it is.
    """
    plain = [module for module in network.modules() if isinstance(module, nn.Conv2d) and not isinstance(module, Convolution)]
    if not any(has_strided_pixels(layer) and layer.in_channels < BLOCK for layer in plain):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
