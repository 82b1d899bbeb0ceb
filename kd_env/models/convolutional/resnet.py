"""``resnet8`` to ``resnet110``: residual networks in CIFAR form (He et al. 2016, arXiv 1512.03385, section 4.2).

A network of depth 6 n + 2 has a 3x3 convolution, three stages of n basic blocks with ``width``, 2 ``width`` and 4 ``width`` channels, of
which the last two halve the map, and a linear classifier of the mean over positions.

Deviation: where the shape changes, the shortcut is a 1x1 convolution with BatchNorm, as in the code that papers on distillation use (Tian
et al. 2020, arXiv 1910.10699), not padding with zeros. So ``resnet20`` has 272,474 parameters for ten classes, 2,752 more than in He et al.
``resnet8x4`` and ``resnet32x4`` are networks of width 64 with 32 channels before the first stage.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import relu

from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat, normed_convolution


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build the layers; ``stride`` 2 halves the map."""
        super().__init__()
        first, second = normed_convolution(inputs, outputs, stride=stride), normed_convolution(outputs, outputs)
        self.body = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*(normed_convolution(inputs, outputs, kernel=1, stride=stride) if changes else []))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the next map ``[B, D, h, w]``."""
        return relu(self.body(maps) + self.shortcut(maps))


class ResNet(ConvolutionalNetwork):
    """A residual network for small images."""

    def __init__(self, image: ImageFormat, depth: int, width: int, stem: int) -> None:
        """Build the layers.

        Args:
            image: the images and the number of classes.
            depth: number of layers with weights, 6 n + 2.
            width: channels of the first stage.
            stem: channels of the convolution before it.
        """
        super().__init__(image)
        self.stem = nn.Sequential(*normed_convolution(image.channels, stem), nn.ReLU(inplace=True))
        blocks = (depth - 2) // 6
        self.stage1 = _stage(blocks, stem, width, stride=1)
        self.stage2 = _stage(blocks, width, 2 * width, stride=2)
        self.stage3 = _stage(blocks, 2 * width, 4 * width, stride=2)
        self.finish(image, 4 * width)

    def stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps after the first convolution and after each stage."""
        stem = self.stem(pixels)
        first = self.stage1(stem)
        second = self.stage2(first)
        return {"stem": stem, "stage1": first, "stage2": second, "stage3": self.stage3(second)}


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet(depth: int) -> Callable[..., ConvolutionalNetwork]:
    """Return the function that builds a network of this depth; its option is ``width``, the channels of the first stage."""

    def build(image: ImageFormat, width: int = 16) -> ConvolutionalNetwork:
        return ResNet(image, depth, width, stem=width)

    return build


def resnet_x4(depth: int) -> Callable[..., ConvolutionalNetwork]:
    """Return the function that builds the network of this depth with four times as many channels, and 32 before the first stage."""

    def build(image: ImageFormat) -> ConvolutionalNetwork:
        return ResNet(image, depth, width=64, stem=32)

    return build
