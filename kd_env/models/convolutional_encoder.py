"""Wrap Transformers classifiers of images with a convolutional body. In: a model of one of :data:`ARCHITECTURES`. Out: a ``ModelOutput``.

The feature maps are named as Transformers names those of its backbones. ``stem`` is the first hidden state of the body, and ``stage1``,
``stage2`` and so on are the last ones of each size after it: a model may show each block, as MobileNet does, or each stage.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kd_env.models.stages import STEM, output_of, requested
from kd_env.types import ModelOutput

ARCHITECTURES = ("convnext", "convnextv2", "efficientnet", "mobilenet_v1", "mobilenet_v2", "regnet", "resnet")
"""Architectures that can be students and that ``kd-env teach`` trains, by their ``model_type`` in Transformers."""
LEAST_SIDE = 64
"""Least side of the image with which the stages are found: their maps have different sizes up to a stride of 64."""
CLOSE = 1e-3
"""Largest difference, as a part of the value, between the features and the means of the last map."""


class ConvolutionalEncoder(nn.Module):
    """A Transformers classifier: a body that gives maps and pools them, and a head that ends in a linear layer."""

    def __init__(self, model: Any, side: int) -> None:
        """Wrap ``model``, which must be in evaluation mode: it is tried on one image.

        Args:
            model: the model.
            side: height and width of the images that it will read.

        Raises:
            RuntimeError: it does not read images of that size.
        """
        super().__init__()
        self.model: nn.Module = model
        self._stages, self._pools_last_map = _tried(model, max(side, LEAST_SIDE))
        if side < LEAST_SIDE:
            _tried(model, side)

    @property
    def classifier(self) -> nn.Linear:
        """Linear layer from features to logits."""
        layer = self._head()[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, pixel_values: Tensor, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Return logits ``[B, C]``, features ``[B, D]`` and the feature maps that ``extra_outputs`` asks for, ``[B, D, h, w]``.

        Args:
            pixel_values: images ``[B, channels, height, width]``.
            extra_outputs: names of further outputs, ``maps`` and ``maps.STAGE``. There is no ``maps`` if the features are not the means of
                the last map, as in ConvNeXt, which normalises them.
        """
        shows_maps = any(output_of(name) == "maps" for name in extra_outputs)
        output = self.model.base_model(pixel_values, output_hidden_states=shows_maps, return_dict=True)  # type: ignore[operator]
        features = output.pooler_output
        *before, classifier = self._head()
        for layer in before:
            features = layer(features)
        last = output.last_hidden_state if "maps" in extra_outputs and self._pools_last_map else None
        maps = {stage: output.hidden_states[number] for stage, number in self._stages.items()} if shows_maps else {}
        return ModelOutput(classifier(features), features, maps=last, stages=requested(maps, extra_outputs))

    def _head(self) -> list[nn.Module]:
        """Return the modules after the body in the order in which they run, such as dropout and the linear layer."""
        children = [child for name, child in self.model.named_children() if name != self.model.base_model_prefix]
        return [layer for child in children for layer in (child if isinstance(child, nn.Sequential) else [child])]


@torch.no_grad()
def _tried(model: Any, side: int) -> tuple[dict[str, int], bool]:
    """Return the number of the hidden state of each stage, and whether the pooled features are the means of the last map."""
    image = torch.rand(1, model.config.num_channels, side, side, generator=torch.Generator().manual_seed(0))
    output = model.base_model(image, output_hidden_states=True, return_dict=True)
    sizes = [tuple(state.shape[2:]) for state in output.hidden_states]
    ends = [number for number in range(1, len(sizes)) if number + 1 == len(sizes) or sizes[number + 1] != sizes[number]]
    stages = {STEM: 0, **{f"stage{position}": number for position, number in enumerate(ends, start=1)}}
    means = output.last_hidden_state.mean((2, 3))
    return stages, torch.allclose(output.pooler_output.flatten(1), means, rtol=CLOSE, atol=CLOSE * float(means.abs().max()))
