"""Open Transformers checkpoints safely. In: a folder or a hub id. Out: its network and its reader, or an input error.

Weights are read only from safetensors, code of a checkpoint is never run, and ``HF_HUB_OFFLINE`` is respected.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.models import convolutional_encoder
from kd_env.models.any_classifier import AnyClassifier
from kd_env.models.checkpoint_files import find_folder, first_line, quiet, read_json, require_layers, require_weights, require_whole
from kd_env.models.convolutional.checkpoint import ConvolutionalCheckpoint, is_convolutional, open_folder
from kd_env.models.convolutional_encoder import ConvolutionalEncoder
from kd_env.models.encode import ImageReader, Reader, TextReader
from kd_env.models.encoder import ARCHITECTURES, Encoder
from kd_env.models.image_preprocessing import image_reader
from kd_env.models.low_bit_files import restore
from kd_env.tasks import Task


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with its configuration. The weights are not loaded yet.

    Attributes:
        text: name that the user typed.
        folder: local folder of the checkpoint.
        config: configuration of the model.
        kind: kind of input, ``text`` or ``image``.
    """

    text: str
    folder: Path
    config: Any
    kind: str

    def reader(self, max_length: int | None = None) -> Reader:
        """Return the function that encodes raw inputs for this checkpoint.

        Args:
            max_length: number of tokens to which texts are cut. Default and limit: the number that tokenizer and position embeddings allow.

        Raises:
            InputError: the tokenizer is missing or does not fit the weights.
        """
        return self._image_reader() if self.kind == "image" else self._text_reader(max_length)

    def _text_reader(self, max_length: int | None) -> Reader:
        tokenizer, config = self.tokenizer(), self.config
        positions = getattr(config, "max_position_embeddings", None)
        positions = positions if isinstance(positions, int) and positions > 2 else LONGEST  # XLNet says -1
        if config.model_type in ARCHITECTURES:
            positions -= ARCHITECTURES[config.model_type].positions_before
        elif getattr(config, "pad_token_id", None) == 1:  # RoBERTa's relatives begin their positions after that of padding
            positions -= 2
        longest = min(tokenizer.model_max_length, positions, positions if max_length is None else max_length)
        types = "token_type_ids" in tokenizer.model_input_names and getattr(config, "type_vocab_size", 1) > 1
        return TextReader(tokenizer, longest, types)

    def tokenizer(self) -> Any:
        """Return the tokenizer.

        Raises:
            InputError: the tokenizer is missing, cannot be read or cannot pad, or it has more tokens than the weights.
        """
        from transformers import AutoTokenizer

        names = [path.name for path in self.folder.iterdir()]
        if not any(name.startswith(("tokenizer", "vocab", "spiece", "sentencepiece")) for name in names):
            raise InputError(
                f"{self.folder}: no tokenizer in this folder; save it there with tokenizer.save_pretrained({str(self.folder)!r})"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except Exception as error:  # parsers raise many types of error for a damaged file
            raise InputError(f"{self.folder}: the tokenizer cannot be read ({first_line(error)}); save it again") from None
        if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:  # GPT-like models are trained without padding
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise InputError(f"{self.folder}: the tokenizer has no padding token; set tokenizer.pad_token as in training, and save it")
        known = getattr(self.config, "vocab_size", len(tokenizer))
        if len(tokenizer) > known:
            raise InputError(
                f"{self.folder}: the tokenizer has {len(tokenizer)} tokens and the weights {known}; save the tokenizer of this model there"
            )
        return tokenizer

    def _image_reader(self) -> ImageReader:
        return image_reader(self.folder, self.config, any_size=self._is_convolutional)

    @property
    def _is_convolutional(self) -> bool:
        return self.config.model_type in convolutional_encoder.ARCHITECTURES

    def network(self, num_classes: int) -> Encoder | ConvolutionalEncoder:
        """Return the network with a new head for ``num_classes`` classes, drawn from torch's global generator, in evaluation mode.

        Raises:
            InputError: the architecture cannot be a student, or weights are missing, do not fit, are not finite, or are not safetensors.
        """
        name = self.config.model_type
        if name not in ARCHITECTURES and not self._is_convolutional:
            raise InputError(
                f"{self.folder}/config.json: architecture {name!r} can be a teacher as it is, but not be trained here; "
                f"those that can: {', '.join(sorted((*ARCHITECTURES, *convolutional_encoder.ARCHITECTURES)))}"
            )
        self.config.num_labels = num_classes
        model = self._load(new_head=True)
        _draw_head(model)
        return self._wrapped(model)

    def classifier(self) -> Encoder | ConvolutionalEncoder | AnyClassifier:
        """Return the network with the checkpoint's own head, in evaluation mode and float32.

        Raises:
            InputError: weights are missing, do not fit, are not finite, or are not safetensors.
        """
        if self.config.model_type in ARCHITECTURES or self._is_convolutional:
            return self._wrapped(restore(self._load(new_head=False), self.folder))
        if self.kind == "text":
            self.config.pad_token_id = self.tokenizer().pad_token_id  # GPT-like models classify the last token that is not padding
        return AnyClassifier(self._load(new_head=False)).eval()

    def _wrapped(self, model: Any) -> Encoder | ConvolutionalEncoder:
        if not self._is_convolutional:
            return Encoder(model).eval()
        side = self._image_reader().side
        try:
            return ConvolutionalEncoder(model.eval(), side)
        except RuntimeError as error:  # torch's, of a layer whose input is too small
            raise InputError(
                f"{self.folder}: the network does not read images of {side} x {side} pixels ({first_line(error)}); "
                "set a larger size in its preprocessor_config.json"
            ) from None

    def _load(self, new_head: bool) -> Any:
        from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

        require_weights(self.folder)
        require_layers(self.folder, self.config)
        kind = AutoModelForImageClassification if self.kind == "image" else AutoModelForSequenceClassification
        try:
            with quiet():
                model, report = kind.from_pretrained(
                    self.folder,
                    config=self.config,
                    use_safetensors=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    attn_implementation="eager",
                    dtype=torch.float32,
                    trust_remote_code=False,
                )
        except Exception as error:  # safetensors, JSON and shapes raise different errors
            raise InputError(f"{self.folder}: the weights cannot be read ({first_line(error)}); save or download them again") from None
        require_whole(self.folder, model, report, new_head)
        return model


LONGEST = 1 << 20
"""Tokens of a text where the model has no limit of positions; its tokenizer may have one."""
INITIALIZER_RANGE = 0.02
"""Standard deviation of the weights of a new head where the configuration does not say it; Transformers has the same default."""


def open_checkpoint(text: str, task: Task) -> Checkpoint | ConvolutionalCheckpoint:
    """Find the checkpoint ``text``, a folder or a hub id, and read its configuration.

    Raises:
        InputError: ``text`` does not exist or is not a checkpoint, its architecture is not supported, or it does not read the task's kind
            of input.
    """
    folder = find_folder(text)
    content = read_json(folder / "config.json")
    name = content.get("model_type")
    kinds = ["image"] if is_convolutional(content) else _kinds(str(name))
    if not kinds:
        raise InputError(
            f"{folder}/config.json: architecture {name!r} is not supported: Transformers has no classifier of texts or images of that name"
        )
    if task.kind not in kinds:
        raise InputError(
            f"checkpoint {text!r} reads {kinds[0]}, task {task.name!r} is {task.kind}; use a checkpoint that reads {task.kind}"
        )
    if is_convolutional(content):
        return open_folder(text, folder)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each architecture checks its values in its own way
        raise InputError(f"{folder}/config.json cannot be used ({first_line(error)}); save or download it again") from None
    return Checkpoint(text, folder, config, task.kind)


def _kinds(model_type: str) -> list[str]:
    """Return the kinds of input, of ``text`` and ``image``, that Transformers has a classifier of that type for."""
    if model_type in ARCHITECTURES:
        return [ARCHITECTURES[model_type].kind]
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    mappings: dict[str, Collection[str]] = {
        "text": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "image": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    }
    return [kind for kind, names in mappings.items() if model_type in names]


def is_checkpoint(text: str) -> bool:
    """Return whether ``text`` names a folder or a hub id such as ``organisation/name``."""
    return "/" in text or (bool(text) and Path(text).expanduser().is_dir())


def _draw_head(model: Any) -> None:
    for name, child in model.named_children():
        if name != model.base_model_prefix:
            for layer in child.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", INITIALIZER_RANGE))
                    nn.init.zeros_(layer.bias)
