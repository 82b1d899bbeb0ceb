"""Save and open trained convolutional networks. In: a network, or a folder. Out: a folder, or a network and its reader.

The folder has ``config.json`` (name and options of the network, number of channels, classes) and ``model.safetensors``. It is not a
Transformers checkpoint: this package reads it wherever it reads one, as a teacher and as the start of a student.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.checkpoint_files import first_line, read_json, require_weights
from kd_env.models.convolutional.building import CONVOLUTIONAL, build
from kd_env.models.convolutional.convolution import in_channels_last
from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat
from kd_env.models.encode import PixelReader
from kd_env.models.low_bit_files import restore, save_steps

MODEL_TYPE = "kd-env-convolutional"
"""What ``config.json`` says in place of an architecture of Transformers."""


def save(folder: Path, network: ConvolutionalNetwork, class_names: Sequence[str]) -> None:
    """Write the network, with the names of its classes."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": MODEL_TYPE,
        "network": network.text,
        "num_channels": len(network.mean),
        "id2label": dict(enumerate(class_names)),
        "problem_type": "single_label_classification",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_weights(folder, network)


def save_weights(folder: Path, network: nn.Module) -> None:
    """Write the weights and buffers of a network, in the number format that they have."""
    network, weights = save_steps(folder, network), folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, weights, {"format": "pt"})
    weights.chmod((folder / "config.json").stat().st_mode)  # safetensors writes files that only their owner can read


def load(folder: str | Path) -> ConvolutionalNetwork:
    """Return the network in a folder that :func:`save` wrote, in evaluation mode and float32.

    Raises:
        InputError: a file is missing or damaged.
    """
    return open_folder(str(folder), Path(folder)).classifier()


@dataclass(frozen=True)
class ConvolutionalCheckpoint:
    """A folder of a convolutional network. It has the interface of :class:`~kd_env.models.pretrained.Checkpoint`.

    Attributes:
        text: name that the user typed.
        folder: the folder.
        config: ``network``, ``num_channels``, ``num_labels``, ``id2label`` and ``problem_type``.
        kind: kind of input, ``image``.
    """

    text: str
    folder: Path
    config: Any
    kind: str = "image"

    def reader(self, max_length: int | None = None) -> PixelReader:
        """Return the function that encodes raw images; images have no length."""
        return PixelReader(self.config.num_channels)

    def classifier(self) -> ConvolutionalNetwork:
        """Return the network in evaluation mode and float32, quantised if it was.

        Raises:
            InputError: weights are missing, do not fit, or are not finite.
        """
        return restore(self._plain(), self.folder).eval()

    def _plain(self) -> ConvolutionalNetwork:
        """Return the network without quantised layers."""
        require_weights(self.folder)
        path = self.folder / "model.safetensors"
        channels = self.config.num_channels
        image = ImageFormat(channels, self.config.num_labels, (0.0,) * channels, (1.0,) * channels)
        try:
            weights = {name: _in_float32(tensor) for name, tensor in load_file(path).items()}
            with torch.device("meta"):  # a configuration of another network takes no memory
                network = build(self.config.network, image)
            network.load_state_dict(weights, assign=True)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise InputError(f"{path}: the weights cannot be read ({first_line(error)}); save or teach them again") from None
        if bad := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
            raise InputError(f"{path}: tensor {bad[0]} has NaN or infinite values; save or teach that network again")
        in_channels_last(network)
        return network

    def network(self, num_classes: int) -> ConvolutionalNetwork:
        """Return the network with a new classifier, drawn from torch's global generator, in evaluation mode.

        Raises:
            InputError: weights are missing, do not fit, or are not finite.
        """
        network = self._plain()
        network.classifier = nn.Linear(network.classifier.in_features, num_classes)
        return network.eval()


def is_convolutional(config: dict[str, Any]) -> bool:
    """Return whether the content of a ``config.json`` is of a convolutional network."""
    return config.get("model_type") == MODEL_TYPE


def open_folder(text: str, folder: Path) -> ConvolutionalCheckpoint:
    """Read the configuration of a network.

    Raises:
        InputError: it is damaged.
    """
    path = folder / "config.json"
    content = read_json(path)
    try:
        names = {int(number): str(name) for number, name in content["id2label"].items()}
        network, channels = str(content["network"]), int(content["num_channels"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be used ({type(error).__name__}: {error}); save or teach it again") from None
    name, options = spec.parse(network)
    if name not in CONVOLUTIONAL or "pretrained" in options or sorted(names) != list(range(len(names))) or channels not in (1, 3):
        raise InputError(
            f"{path}: network {network!r}, {channels} channels and {len(names)} classes cannot be used; save or teach it again"
        )
    problem_type = content.get("problem_type")
    config = SimpleNamespace(
        network=network, num_channels=channels, num_labels=len(names), id2label=names, problem_type=problem_type, model_type=MODEL_TYPE
    )
    return ConvolutionalCheckpoint(text, folder, config)


def _in_float32(tensor: Tensor) -> Tensor:
    """Return a copy, since the tensors of a file lie at addresses at which some operations round otherwise."""
    return tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
