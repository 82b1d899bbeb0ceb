"""``shufflenetv2``: ShuffleNet V2 (Ma et al. 2018, arXiv 1807.11164) for small images.

The form is the one of papers on distillation (Tian et al. 2020, arXiv 1910.10699): a 1x1 convolution of 24 channels at full size and no
pooling before the first stage; three stages, each with a block that halves the map and 3, 7 and 3 further blocks (one more than in the
paper); and a 1x1 convolution before the classifier. ``width`` is 0.5, 1, 1.5 or 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_env import spec
from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat, normed_convolution

CHANNELS = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024), 1.5: (176, 352, 704, 1024), 2.0: (244, 488, 976, 2048)}
"""Channels of the three stages and of the last convolution, by width."""
BLOCKS = (3, 7, 3)
"""Number of blocks of each stage after the one that halves the map."""
STEM = 24


class Block(nn.Module):
    """Half of the channels pass unchanged, the others through 1x1, 3x3 (channel by channel) and 1x1 convolutions; then a shuffle."""

    def __init__(self, channels: int) -> None:
        """Build the layers."""
        super().__init__()
        self.branch = nn.Sequential(*_branch(channels // 2, channels // 2, stride=1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the next map ``[B, D, h, w]``."""
        unchanged, changed = maps.chunk(2, 1)
        return _shuffled(torch.cat([unchanged, self.branch(changed)], 1))


class DownBlock(nn.Module):
    """Two branches of convolutions, each of which halves the map, and a shuffle of their channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Build the layers."""
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(
            *normed_convolution(inputs, inputs, stride=2, groups=inputs), *normed_convolution(inputs, half, kernel=1), nn.ReLU(inplace=True)
        )
        self.right = nn.Sequential(*_branch(inputs, half, stride=2))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the next map ``[B, D, h / 2, w / 2]``."""
        return _shuffled(torch.cat([self.left(maps), self.right(maps)], 1))


class ShuffleNetV2(ConvolutionalNetwork):
    """A ShuffleNet V2 for small images."""

    def __init__(self, image: ImageFormat, width: float) -> None:
        """Build the layers; ``width`` is one of :data:`CHANNELS`."""
        super().__init__(image)
        *widths, last = CHANNELS[width]
        self.stem = nn.Sequential(*normed_convolution(image.channels, STEM, kernel=1), nn.ReLU(inplace=True))
        sizes = zip([STEM, *widths], widths, BLOCKS, strict=False)
        self.body = nn.ModuleList(nn.Sequential(DownBlock(i, o), *(Block(o) for _ in range(count))) for i, o, count in sizes)
        self.last = nn.Sequential(*normed_convolution(widths[-1], last, kernel=1), nn.ReLU(inplace=True))
        self.finish(image, last)

    def stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps after the first convolution, after each stage, and the last one."""
        maps = self.stem(pixels)
        outputs = {"stem": maps}
        for number, stage in enumerate(self.body, start=1):
            outputs[f"stage{number}"] = maps = stage(maps)
        return {**outputs, "last": self.last(maps)}


def _branch(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        *normed_convolution(inputs, outputs, kernel=1),
        nn.ReLU(inplace=True),
        *normed_convolution(outputs, outputs, stride=stride, groups=outputs),
        *normed_convolution(outputs, outputs, kernel=1),
        nn.ReLU(inplace=True),
    ]


def _shuffled(maps: Tensor) -> Tensor:
    """Return the map with the channels of its two halves in turn."""
    batch, channels, height, width = maps.shape
    return maps.reshape(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def shufflenetv2(image: ImageFormat, width: float = 1.0) -> ConvolutionalNetwork:
    """Build the network.

    Raises:
        InputError: there is no network of this width.
    """
    spec.one_of("student shufflenetv2", *CHANNELS, width=float(width) if isinstance(width, int) else width)
    return ShuffleNetV2(image, float(width))
