"""Define the base class of convolutional networks. In: images in [0, 1]. Out: a ``ModelOutput`` with the requested feature maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.models.convolutional.convolution import Convolution
from kd_env.models.stages import requested
from kd_env.tasks import Task
from kd_env.types import ModelOutput


class ImageFormat(NamedTuple):
    """The images that a network reads, and the number of classes.

    Attributes:
        channels: number of channels.
        num_classes: number of classes C.
        mean: mean of each channel, which the network subtracts.
        deviation: standard deviation of each channel, by which the network divides.
    """

    channels: int
    num_classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, task: Task, name: str) -> ImageFormat:
        """Return the images of a task, with the statistics of its train split; ``name`` is the network's, for the error message.

        Raises:
            InputError: the task has texts.
        """
        if task.kind != "image":
            raise InputError(f"student {name!r} reads images, task {task.name!r} is text; use tiny-bert")
        return cls(task.train.inputs.shape[1], task.num_classes, *task.channel_statistics)


class ConvolutionalNetwork(nn.Module, ABC):
    """Base class: stages of convolutions, the mean over the positions of the last map as features, and a linear classifier.

    The network normalises images itself, with buffers that are saved with its weights.

    Attributes:
        text: the network's name with its options, from which it can be built again.
    """

    text = ""
    mean: Tensor
    deviation: Tensor

    def __init__(self, image: ImageFormat) -> None:
        """Store the normalisation. A subclass then adds its stages and calls :meth:`finish`."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(image.mean).view(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(image.deviation).view(-1, 1, 1))

    def finish(self, image: ImageFormat, width: int, classifier_deviation: float | None = None) -> None:
        """Add the classifier of ``width`` features, and draw the weights of the convolutions (He et al. 2015, arXiv 1502.01852, fan out).

        Args:
            image: the images and the number of classes.
            width: number of features D, the channels of the last map.
            classifier_deviation: standard deviation of the classifier's weights, with biases of zero. Default: those of torch.
        """
        self.classifier = nn.Linear(width, image.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if classifier_deviation is not None:
            nn.init.normal_(self.classifier.weight, std=classifier_deviation)
            nn.init.zeros_(self.classifier.bias)

    @abstractmethod
    def stages(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the feature map of each stage by name, ``[B, D, h, w]``, for normalised images; the last one is pooled and classified."""

    def forward(self, pixel_values: Tensor, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Return logits ``[B, C]``, features ``[B, D]`` and the feature maps that ``extra_outputs`` asks for, ``[B, D, h, w]``.

        ``maps`` asks for the last map, ``maps.STAGE`` and ``maps.all`` for those of other stages (:mod:`kd_env.models.stages`).
        """
        stages = self.stages((pixel_values - self.mean) / self.deviation)
        last = list(stages.values())[-1]
        features = last.mean((2, 3))
        maps = last if "maps" in extra_outputs else None
        return ModelOutput(self.classifier(features), features, maps=maps, stages=requested(stages, extra_outputs))


def normed_convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False) -> list[nn.Module]:
    """Return a convolution that keeps the size of the map, up to ``stride``, and BatchNorm."""
    convolution = Convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return [convolution, nn.BatchNorm2d(outputs)]
