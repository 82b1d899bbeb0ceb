"""``wrn``: wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146), as ``wrn(depth=16,widen=2)`` for WRN-16-2.

A network of depth 6 n + 4 has a 3x3 convolution of 16 channels and three stages of n blocks with 16, 32 and 64 times ``widen`` channels.
BatchNorm and ReLU come before each convolution. ``dropout`` is the rate between the two convolutions of a block, 0 or .3 in the paper.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from kd_env.errors import InputError
from kd_env.models.convolutional.convolution import Convolution
from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat


class PreactivationBlock(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice, and a shortcut, which is a 1x1 convolution where the number of channels changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        """Build the layers; ``stride`` 2 halves the map."""
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout)] * (dropout > 0.0)
        self.body = nn.Sequential(*layers, nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False))
        self.shortcut = None if inputs == outputs else Convolution(inputs, outputs, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the next map ``[B, D, h, w]``."""
        active = relu(self.norm(maps))
        residual: Tensor = self.body(active)
        return residual + (maps if self.shortcut is None else self.shortcut(active))


class WideResNet(ConvolutionalNetwork):
    """A wide residual network for small images."""

    def __init__(self, image: ImageFormat, depth: int, widen: int, dropout: float) -> None:
        """Build the layers; ``depth`` is 6 n + 4."""
        super().__init__(image)
        self.stem = nn.Conv2d(image.channels, 16, 3, 1, 1, bias=False)
        blocks, widths = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
        self.stage1 = _stage(blocks, widths[0], widths[1], 1, dropout)
        self.stage2 = _stage(blocks, widths[1], widths[2], 2, dropout)
        self.stage3 = _stage(blocks, widths[2], widths[3], 2, dropout)
        self.norm = nn.BatchNorm2d(widths[3])
        self.finish(image, widths[3])
        nn.init.zeros_(self.classifier.bias)

    def stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps after the first convolution and after each stage, the last one after BatchNorm and ReLU."""
        stem = self.stem(pixels)
        first = self.stage1(stem)
        second = self.stage2(first)
        return {"stem": stem, "stage1": first, "stage2": second, "stage3": relu(self.norm(self.stage3(second)))}


def _stage(blocks: int, inputs: int, outputs: int, stride: int, dropout: float) -> nn.Sequential:
    rest = (PreactivationBlock(outputs, outputs, 1, dropout) for _ in range(blocks - 1))
    return nn.Sequential(PreactivationBlock(inputs, outputs, stride, dropout), *rest)


def wrn(image: ImageFormat, depth: int = 16, widen: int = 2, dropout: float = 0.0) -> ConvolutionalNetwork:
    """Build the network.

    Raises:
        InputError: ``depth`` is not 6 n + 4.
    """
    if depth < 10 or (depth - 4) % 6:
        raise InputError(f"student wrn(depth={depth}): expected 6 n + 4 layers, as 10, 16, 22, 28 or 40")
    return WideResNet(image, depth, widen, dropout)
