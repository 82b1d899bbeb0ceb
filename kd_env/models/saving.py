"""Save a trained network. In: a network, its task and reader. Out: a folder that is a checkpoint.

A Transformers model is saved for the ``Auto*`` classes, a convolutional network as ``models/convolutional/checkpoint.py`` says.
A quantised network is saved with its quantised weights, and its step sizes beside them (``models/low_bit_files.py``).
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

from torch import nn

from kd_env.models.checkpoint_files import quiet
from kd_env.models.convolutional import ConvolutionalNetwork
from kd_env.models.convolutional import checkpoint as convolutional
from kd_env.models.convolutional_encoder import ConvolutionalEncoder
from kd_env.models.encode import ImageReader, Reader, TextReader
from kd_env.models.encoder import Encoder
from kd_env.models.low_bit import LowBitConv2d, Quantizer, sizes_of
from kd_env.models.low_bit_files import save_steps
from kd_env.tasks import Task

TransformersNetwork = Encoder | ConvolutionalEncoder
"""Networks with a Transformers model, ``model``."""
Saveable = TransformersNetwork | ConvolutionalNetwork
"""Networks that can be saved as checkpoints."""


def save(folder: Path, network: Saveable, task: Task, reader: Reader) -> None:
    """Write the weights, the configuration with the task's class names, and the tokenizer or image preprocessing."""
    if isinstance(network, ConvolutionalNetwork):
        convolutional.save(folder, network, task.class_names)
        return
    model = network.model
    if isinstance(reader, ImageReader) and reader.channels == 1:
        model, reader = _in_colour(model), ImageReader(reader.side, 3, reader.mean * 3, reader.std * 3)
    model.config.id2label = dict(enumerate(task.class_names))  # type: ignore[union-attr]
    model.config.label2id = {name: number for number, name in enumerate(task.class_names)}  # type: ignore[union-attr]
    model.config.problem_type = "single_label_classification"  # type: ignore[union-attr]
    save_weights(folder, model)
    if isinstance(reader, TextReader):
        tokenizer = copy.deepcopy(reader.tokenizer)
        tokenizer.model_max_length = reader.max_length
        tokenizer.init_kwargs["model_max_length"] = reader.max_length
        tokenizer.save_pretrained(folder)
    else:
        assert isinstance(reader, ImageReader)
        side = {"height": reader.side, "width": reader.side}
        preprocessing = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": side,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": reader.mean,
            "image_std": reader.std,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1))


def save_weights(folder: Path, model: Any) -> None:
    """Write the weights and the configuration of a Transformers model, or the weights of a convolutional network.

    The weights of quantised layers are the quantised ones, and their step sizes are written too.
    """
    if isinstance(model, ConvolutionalNetwork):
        convolutional.save_weights(folder, model)
        return
    with quiet():
        save_steps(folder, model).save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        weights.chmod((folder / "config.json").stat().st_mode)  # safetensors writes files that only their owner can read


def _in_colour(model: nn.Module) -> nn.Module:
    """Return a copy of a model for grey images that accepts three equal channels, because Transformers' pipelines produce three."""
    model = copy.deepcopy(model)
    name, grey = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    colour: nn.Conv2d = nn.Conv2d(**{**sizes_of(grey), "in_channels": 3}, bias=grey.bias is not None)
    colour.weight = nn.Parameter(grey.weight.detach().repeat(1, 3, 1, 1) / 3)
    colour.bias = grey.bias
    if isinstance(grey, LowBitConv2d):  # a third of the weights has a third of the step
        log_step = float(grey.weight_quantizer.log_step.detach()) - math.log(3)
        colour = LowBitConv2d(colour, Quantizer(grey.weight_quantizer.bits, True, log_step), grey.input_quantizer)
    model.set_submodule(name, colour)
    for module in (*model.modules(), model.config):
        if "num_channels" in vars(module):  # the first layers check it
            module.num_channels = 3  # type: ignore[union-attr]
    return model


def reader_to_save(task: Task, max_length: int) -> Reader:
    """Return the reader of a built-in transformer for ``task`` as a reader that a checkpoint can store."""
    if task.kind == "text":
        assert task.tokenizer is not None
        return TextReader(task.tokenizer(), max_length, token_types=False)
    channels, side = task.train.inputs.shape[1:3]
    return ImageReader(side, channels, (0.0,) * channels, (1.0,) * channels)
