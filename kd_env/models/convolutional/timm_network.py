"""``timm``: any classifier of the library timm, as ``timm(model=resnet18)``. In: images. Out: timm's network with a new classifier.

timm's own pooling gives the features. The maps are those of ``forward_intermediates``, named ``stage1`` and so on in timm's order; the last
of them stands for the map that is classified. timm is an optional package, and imports torchvision.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.checkpoint_files import first_line
from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat
from kd_env.models.stages import requested
from kd_env.types import ModelOutput


class TimmNetwork(ConvolutionalNetwork):
    """A network of timm."""

    def __init__(self, image: ImageFormat, body: Any, size: int) -> None:
        """Add a linear classifier to ``body``, a network of timm without one; ``size`` above 0 is the side to which images are scaled."""
        super().__init__(image)
        self.body, self.size = body, size
        self.classifier = nn.Linear(body.head_hidden_size, image.num_classes)

    def stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return timm's intermediate maps, ``[B, D, h, w]``."""
        return self._named(self.body.forward_intermediates(pixels)[1])

    def forward(self, pixel_values: Tensor, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Return logits ``[B, C]``, features ``[B, D]`` as timm pools them, and the feature maps that ``extra_outputs`` asks for."""
        pixels = (pixel_values - self.mean) / self.deviation
        if self.size:
            pixels = interpolate(pixels, (self.size, self.size), mode="bilinear", align_corners=False)
        maps: dict[str, Tensor] = {}
        if any(name.startswith("maps") for name in extra_outputs):
            final, intermediates = self.body.forward_intermediates(pixels)
            maps = self._named(intermediates)
        else:
            final = self.body.forward_features(pixels)
        features = self.body.forward_head(final, pre_logits=True)
        last = list(maps.values())[-1] if "maps" in extra_outputs else None
        return ModelOutput(self.classifier(features), features, maps=last, stages=requested(maps, extra_outputs))

    def _named(self, maps: list[Tensor]) -> dict[str, Tensor]:
        return {f"stage{number}": each for number, each in enumerate(maps, start=1)}


def timm_network(image: ImageFormat, model: str, pretrained: bool = False, size: int = 0) -> TimmNetwork:
    """Build the network.

    Args:
        image: the images and the number of classes.
        model: name of a model of timm.
        pretrained: whether to start from timm's weights, and to normalise images as they were trained. timm downloads them.
        size: side to which images are scaled; 0 leaves them as they are.

    Raises:
        InputError: timm cannot be imported or has no such model, or the weights are not available.
    """
    place = f"student timm(model={model})"
    spec.one_of(place, True, False, pretrained=pretrained)
    spec.numbers(place, least=0, whole=True, size=size)
    if not isinstance(model, str) or ":" in model:  # timm would download or read what a config.json of somebody else names
        raise InputError(f"{place}: expected a name of timm.list_models(), such as resnet18")
    try:
        timm, layers = importlib.import_module("timm"), importlib.import_module("timm.layers")
    except (ImportError, RuntimeError) as error:  # torchvision raises a RuntimeError beside a torch that it was not built for
        raise InputError(
            f"{place} needs timm ({error}); install the extra 'timm', and torchvision from where torch was installed from"
        ) from None
    layers.set_fused_attn(False)  # fused attention has no forward-mode derivatives
    try:
        with torch.device("cpu"):  # on the meta device, buffers that are not saved would be lost
            body = timm.create_model(model, pretrained=pretrained, num_classes=0, in_chans=image.channels)
            if pretrained and image.channels == len(body.pretrained_cfg["mean"]):
                image = image._replace(mean=tuple(body.pretrained_cfg["mean"]), deviation=tuple(body.pretrained_cfg["std"]))
            return TimmNetwork(image, body, size)
    except Exception as error:  # each model checks its arguments in its own way, and so does the download of weights
        raise InputError(f"{place} cannot be built: {first_line(error)}") from None


def require_reads(network: TimmNetwork, pixel_values: Tensor) -> None:
    """Check that a network in evaluation mode reads the images ``[B, channels, height, width]``.

    Raises:
        InputError: it does not; the message is timm's.
    """
    try:
        with torch.no_grad():
            network(pixel_values)
    except Exception as error:  # each model checks its inputs in its own way
        shape = " x ".join(map(str, pixel_values.shape[2:]))
        raise InputError(
            f"student {network.text}: it does not read images of {shape} pixels ({first_line(error)}); set size, as size=224"
        ) from None
