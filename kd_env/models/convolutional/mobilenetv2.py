"""``mobilenetv2``: inverted residuals with linear bottlenecks (Sandler et al. 2018, arXiv 1801.04381) for small images.

The form is the one of papers on distillation (Tian et al. 2020, arXiv 1910.10699), which use ``mobilenetv2(width=0.5)``, the default here:
strides 2, 1, 1, 2, 2, 1, 2, 1 before the last convolution, so that an image of 32 x 32 pixels gives a map of 2 x 2; ReLU in place of ReLU6;
no dropout; and a 1x1 convolution also in the first block. ``expansion`` is the factor of the channels inside a block.
"""

from __future__ import annotations

from torch import Tensor, nn

from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat, normed_convolution

BLOCKS = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels at width 1, number of blocks, and stride of the first block, for each group of blocks."""
STAGE_ENDS = {1: "stage1", 2: "stage2", 4: "stage3", 6: "stage4"}
"""Names of the maps after these groups."""
LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a 3x3 convolution of each channel, and a 1x1 convolution back, with a shortcut where possible."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        """Build the layers."""
        super().__init__()
        inner = expansion * inputs
        self.body = nn.Sequential(
            *normed_convolution(inputs, inner, kernel=1),
            nn.ReLU(inplace=True),
            *normed_convolution(inner, inner, stride=stride, groups=inner),
            nn.ReLU(inplace=True),
            *normed_convolution(inner, outputs, kernel=1),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Return the next map ``[B, D, h, w]``."""
        residual: Tensor = self.body(maps)
        return maps + residual if self.has_shortcut else residual


class MobileNetV2(ConvolutionalNetwork):
    """A MobileNetV2 for small images."""

    def __init__(self, image: ImageFormat, width: float, expansion: int) -> None:
        """Build the layers; ``width`` multiplies all numbers of channels, the last one only if it is above 1."""
        super().__init__(image)
        inputs = int(32 * width)
        self.stem = nn.Sequential(*normed_convolution(image.channels, inputs, stride=2), nn.ReLU(inplace=True))
        self.body = nn.ModuleList()
        for channels, count, stride in BLOCKS:
            outputs = int(channels * width)
            first = InvertedResidual(inputs, outputs, stride, 1 if channels == BLOCKS[0][0] else expansion)
            self.body.append(nn.Sequential(first, *(InvertedResidual(outputs, outputs, 1, expansion) for _ in range(count - 1))))
            inputs = outputs
        last = int(LAST_CHANNELS * max(width, 1.0))
        self.last = nn.Sequential(*normed_convolution(inputs, last, kernel=1), nn.ReLU(inplace=True))
        self.finish(image, last, classifier_deviation=0.01)

    def stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps after the first convolution, after the groups of blocks of :data:`STAGE_ENDS`, and the last one."""
        maps = self.stem(pixels)
        outputs = {"stem": maps}
        for number, blocks in enumerate(self.body):
            maps = blocks(maps)
            if number in STAGE_ENDS:
                outputs[STAGE_ENDS[number]] = maps
        return {**outputs, "last": self.last(maps)}


def mobilenetv2(image: ImageFormat, width: float = 0.5, expansion: int = 6) -> ConvolutionalNetwork:
    """Build the network."""
    return MobileNetV2(image, width, expansion)
