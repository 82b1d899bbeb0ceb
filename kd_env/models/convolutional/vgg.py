"""``vgg8``, ``vgg11``, ``vgg13``: VGG networks with BatchNorm in CIFAR form (after Simonyan and Zisserman 2015, arXiv 1409.1556).

The form is the one of papers on distillation (Tian et al. 2020, arXiv 1910.10699): five stages of 3x3 convolutions with 64, 128, 256, 512
and 512 channels, a linear classifier of the mean over positions, and no other linear layers. The map is halved after each of the first
three stages; of images of at least 64 pixels, also after the fourth.

``width`` is the number of channels of the first stage. A map of one row or column is not halved, so that small images can be read.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat, normed_convolution

CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2)}
"""Number of convolutions in each stage, by depth. The depth counts three linear layers, of which this form has one."""
FACTORS = (1, 2, 4, 8, 8)
"""Channels of each stage, in widths."""
LARGE = 64
"""Side in pixels from which on the map is halved a fourth time."""


class VGG(ConvolutionalNetwork):
    """A VGG network for small images."""

    def __init__(self, image: ImageFormat, depth: int, width: int) -> None:
        """Build the layers; ``depth`` is one of :data:`CONVOLUTIONS`."""
        super().__init__(image)
        widths = [image.channels, *(factor * width for factor in FACTORS)]
        self.body = nn.ModuleList(
            _stage(count, inputs, outputs) for count, inputs, outputs in zip(CONVOLUTIONS[depth], widths, widths[1:], strict=False)
        )
        self.finish(image, widths[-1], classifier_deviation=0.01)

    def stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map of each stage, before it is halved."""
        halvings = 4 if pixels.shape[2] >= LARGE else 3
        outputs, maps = {}, pixels
        for number, stage in enumerate(self.body, start=1):
            if 1 < number <= halvings + 1 and min(maps.shape[2:]) > 1:
                maps = max_pool2d(maps, 2)
            outputs[f"stage{number}"] = maps = stage(maps)
        return outputs


def _stage(count: int, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in [inputs] + [outputs] * (count - 1):
        layers += [*normed_convolution(size, outputs, bias=True), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def vgg(depth: int) -> Callable[..., ConvolutionalNetwork]:
    """Return the function that builds a network of this depth; its option is ``width``, the channels of the first stage."""

    def build(image: ImageFormat, width: int = 64) -> ConvolutionalNetwork:
        return VGG(image, depth, width)

    return build
