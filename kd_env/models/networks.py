"""Build networks by name. In: ``mlp(width=24)``, a checkpoint or ``module:Class``, and a task. Out: ``network(**inputs) -> ModelOutput``.

Each built-in network has a linear ``classifier`` that reads ``ModelOutput.features``; head credit needs it. Transformers use eager
attention, which has forward-mode derivatives, and LayerNorm, which does not mix the examples of a mini-batch. The networks of the package
``convolutional`` have BatchNorm, which does, so they are taught one at a time. With the options ``bits`` and ``outer_bits``, a network is
quantised (:mod:`kd_env.models.low_bit`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models import from_checkpoint, from_plugin, low_bit
from kd_env.models.convolutional import CONVOLUTIONAL, ImageFormat
from kd_env.models.convolutional.building import build as build_convolutional
from kd_env.models.convolutional.timm_network import TimmNetwork, require_reads
from kd_env.models.encode import DEFAULT_MAX_TOKENS, Reader, encode
from kd_env.models.encoder import Encoder
from kd_env.models.modes import evaluation_mode
from kd_env.models.pretrained import is_checkpoint
from kd_env.randomness import seeded
from kd_env.tasks import Task
from kd_env.types import ModelOutput


class MLP(nn.Module):
    """A multilayer perceptron for flattened images: ``depth`` hidden layers of ``width`` ReLU units, and a linear classifier."""

    def __init__(self, num_inputs: int, num_classes: int, width: int = 24, depth: int = 1, dropout: float = 0.0) -> None:
        """Build the layers. ``width`` is the feature width D."""
        super().__init__()
        layers: list[nn.Module] = []
        for size in [num_inputs] + [width] * (depth - 1):
            layers += [nn.Linear(size, width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, pixel_values: Tensor, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Return logits ``[B, C]``, features ``[B, D]`` and, if ``extra_outputs`` has ``layers``, hidden layers ``[B, depth, D]``."""
        features, hidden = pixel_values.flatten(1), []
        for module in self.body:
            features = module(features)
            if isinstance(module, nn.ReLU):
                hidden.append(features)
        return ModelOutput(self.classifier(features), features, torch.stack(hidden, 1) if "layers" in extra_outputs else None)


def _mlp(task: Task, width: int = 24, depth: int = 1, dropout: float = 0.0) -> nn.Module:
    if task.kind != "image":
        raise InputError(f"student 'mlp' reads images, task {task.name!r} is text; use tiny-bert")
    return MLP(int(task.train.inputs[0].size), task.num_classes, width, depth, dropout)


def _tiny_bert(task: Task, width: int = 64, layers: int = 2, heads: int = 2, dropout: float = 0.1) -> nn.Module:
    if task.tokenizer is None:
        raise InputError(f"student 'tiny-bert' reads text, task {task.name!r} is {task.kind}; use tiny-vit or resnet20")
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(task.tokenizer()),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=max(task.max_length, DEFAULT_MAX_TOKENS),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **_common(task, width),
    )
    return Encoder(BertForSequenceClassification(config))


def _common(task: Task, width: int) -> dict[str, Any]:
    """Return the settings that all Transformers networks share.

    The default scale of initial weights, .02, is meant for width 768. With it, a narrow network stays on a long plateau, so the scale here
    grows as the width falls.
    """
    return {"num_labels": task.num_classes, "attn_implementation": "eager", "initializer_range": width**-0.5}


def _tiny_vit(task: Task, width: int = 32, layers: int = 2, heads: int = 2, patch: int = 0, dropout: float = 0.0) -> nn.Module:
    if task.kind != "image":
        raise InputError(f"student 'tiny-vit' reads images, task {task.name!r} is text; use tiny-bert")
    from transformers import ViTConfig, ViTForImageClassification

    channels, height, side = task.train.inputs.shape[1:]
    if height != side:
        raise InputError(f"student 'tiny-vit' reads square images, task {task.name!r} has {height} x {side}")
    patch = patch or next(size for size in range(max(side // 4, 1), 0, -1) if side % size == 0)
    if side % patch or width % heads:
        raise InputError(f"student 'tiny-vit': patch={patch} must divide the side {side}, and heads={heads} the width {width}")
    if side // patch > MAX_PATCHES:
        raise InputError(
            f"student 'tiny-vit': {side // patch} x {side // patch} patches are too many; the side {side} has few divisors: "
            "scale the images, as with images:PATH(size=32), or give a larger patch"
        )
    config = ViTConfig(
        image_size=side,
        patch_size=patch,
        num_channels=channels,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **_common(task, width),
    )
    return Encoder(ViTForImageClassification(config))


MAX_PATCHES = 64
"""The largest number of patches along a side of an image."""
MAX_LAYERS = 1000
"""The largest number of layers of a built-in network."""
NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": _mlp, "tiny-bert": _tiny_bert, "tiny-vit": _tiny_vit, **CONVOLUTIONAL}
"""Built-in networks by name."""


def build(text: str, task: Task, seed: int) -> nn.Module:
    """Build and initialise the network ``text``. Equal seeds give equal weights, and the global generator is not changed.

    Raises:
        InputError: the architecture, checkpoint, class or option does not exist, or the network does not read the task's kind of input.
    """
    if from_plugin.is_plugin(text):
        with seeded(seed):
            return from_plugin.build(text, task)
    if begins_as_checkpoint(text):
        with seeded(seed):
            return from_checkpoint.build(text, task)
    name, options = spec.parse(text)
    if name not in NETWORKS:
        raise spec.unknown("network", name, NETWORKS, " (there is no folder of that name either)")
    widths, options = low_bit.split_options(text, options)
    network = _built_in(text if widths is None else str(spec.Spec(name, options)), task, seed)
    if widths is not None:
        low_bit.quantize(network, widths, encode(task, task.train.inputs[: low_bit.EXAMPLES]))
        if all(layer.weight_quantizer.bits != widths.bits for _, layer in low_bit.layers_of(network)):
            raise InputError(
                f"student {text!r}: all of its layers are outer ones, which have outer_bits={widths.outer_bits}; "
                f"add outer_bits={widths.bits}, or layers between them"
            )
    return network


def _built_in(text: str, task: Task, seed: int) -> nn.Module:
    """Build the network ``text``, which is not quantised."""
    name, options = spec.parse(text)
    if name in CONVOLUTIONAL:
        image = ImageFormat.of(task, name)
        with seeded(seed):
            network = build_convolutional(text, image)
        if isinstance(network, TimmNetwork):
            with evaluation_mode(network):
                require_reads(network, **encode(task, task.train.inputs[:2]))
        return network
    for key, value in options.items():
        most = MAX_LAYERS if key in ("depth", "layers") else math.inf
        least = 0 if key in ("dropout", "patch") else 1
        spec.numbers(f"student {name}", whole=key != "dropout", least=least, most=most, **{key: value})
    with seeded(seed):
        try:
            built: nn.Module = spec.call(text, partial(NETWORKS[name], task), options)
            return built
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"student {text!r} cannot be built: {error}") from None


def reader(text: str, task: Task) -> Reader:
    """Return the reader of the network ``text`` for the inputs of ``task``."""
    return from_checkpoint.reader(text, task) if begins_as_checkpoint(text) else partial(encode, task)


def bit_widths(text: str) -> low_bit.LowBit | None:
    """Return the bit-widths of the network ``text``; ``None`` in float32.

    Raises:
        InputError: an option is malformed, or a bit-width is out of range.
    """
    if from_plugin.is_plugin(text):
        return None
    return low_bit.split_options(text, (from_checkpoint if begins_as_checkpoint(text) else spec).parse(text).options)[0]


def begins_as_checkpoint(text: str) -> bool:
    """Return whether ``text`` names a checkpoint, not a built-in architecture or a class."""
    if text.partition("(")[0].strip() in NETWORKS or from_plugin.is_plugin(text):
        return False
    return any(map(is_checkpoint, (text, text.rpartition("(")[0])))
