"""Open Transformers checkpoints safely. In: a folder or a hub id. Out: its network and its reader, or an input error.

Weights are read only from safetensors, code of a checkpoint is never run, and ``HF_HUB_OFFLINE`` is respected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import find_folder, first_line, quiet, read_json, require_weights
from kd_env.models.encode import ImageReader, Reader, TextReader
from kd_env.models.encoder import ARCHITECTURES, Encoder
from kd_env.tasks import Task


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with its configuration. The weights are not loaded yet.

    Attributes:
        text: name that the user typed.
        folder: local folder of the checkpoint.
        config: configuration of the model.
    """

    text: str
    folder: Path
    config: Any

    @property
    def kind(self) -> str:
        """Kind of input, ``text`` or ``image``."""
        return ARCHITECTURES[self.config.model_type].kind

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
        positions = config.max_position_embeddings - ARCHITECTURES[config.model_type].positions_before
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
        if tokenizer.pad_token_id is None or len(tokenizer) > self.config.vocab_size:
            raise InputError(
                f"{self.folder}: the tokenizer has {len(tokenizer)} tokens and the weights {self.config.vocab_size}, or it cannot pad; "
                "save the tokenizer of this model in the folder"
            )
        return tokenizer

    def _image_reader(self) -> Reader:
        channels = self.config.num_channels
        path = self.folder / "preprocessor_config.json"
        settings = read_json(path) if path.exists() else {}
        normalise = settings.get("do_normalize", bool(settings))
        mean, std = (tuple(settings.get(key, (0.5,) * channels)) if normalise else (fill,) * channels for key, fill in _STATISTICS)
        if len(mean) != channels or len(std) != channels or not all(std):
            raise InputError(f"{path}: image_mean and image_std must have {channels} numbers each, image_std above 0; correct the file")
        return ImageReader(self.config.image_size, channels, mean, std)

    def network(self, num_classes: int, new_head: bool) -> Encoder:
        """Return the network for ``num_classes`` classes, in evaluation mode and float32.

        Args:
            num_classes: number of classes of the head.
            new_head: whether to draw a new head from torch's global generator. If false, the checkpoint must contain the head.

        Raises:
            InputError: weights are missing, do not fit, are not finite, or are not safetensors.
        """
        from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

        require_weights(self.folder)
        kind = AutoModelForImageClassification if self.kind == "image" else AutoModelForSequenceClassification
        if new_head:
            self.config.num_labels = num_classes
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
        self._require_whole(model, report, new_head)
        if new_head:
            _draw_head(model)
        return Encoder(model).eval()

    def _require_whole(self, model: Any, report: dict[str, Any], new_head: bool) -> None:
        def of_body(name: str) -> bool:
            return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in f".{name}"

        missing = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
        missing = [name for name in missing if of_body(name) or not new_head]
        if missing:
            body = any(map(of_body, missing))
            problem = "the file is incomplete, or has another architecture" if body else "its classifier is not trained"
            raise InputError(
                f"{self.folder}: {len(missing)} tensors are missing or have another shape, for example {missing[0]}: {problem}; "
                "use a checkpoint of a classifier, or make one with kd-env teach"
            )
        unexpected = sorted(name for name in report["unexpected_keys"] if ".pooler." not in f".{name}")
        if unexpected and not new_head:
            problem = f"{len(unexpected)} tensors that a {type(model).__name__} does not have, for example {unexpected[0]}"
            raise InputError(f"{self.folder}: {problem}; use another checkpoint")
        bad = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
        bad = [name for name in bad if not new_head or name.startswith(f"{model.base_model_prefix}.")]
        if bad:
            raise InputError(f"{self.folder}: tensor {bad[0]} has NaN or infinite values; save or download that checkpoint again")


_STATISTICS = (("image_mean", 0.0), ("image_std", 1.0))
"""Keys of a preprocessor's file, and the values that do not change an image."""


def open_checkpoint(text: str, task: Task) -> Checkpoint:
    """Find the checkpoint ``text``, a folder or a hub id, and read its configuration.

    Raises:
        InputError: ``text`` does not exist or is not a checkpoint, its architecture is not supported, or it does not read the task's kind
            of input.
    """
    folder = find_folder(text)
    name = read_json(folder / "config.json").get("model_type")
    if name not in ARCHITECTURES:
        raise InputError(f"{folder}/config.json: architecture {name!r} is not supported; supported: {', '.join(sorted(ARCHITECTURES))}")
    kind = ARCHITECTURES[name].kind
    if kind != task.kind:
        raise InputError(f"checkpoint {text!r} reads {kind}, task {task.name!r} is {task.kind}; use a checkpoint that reads {task.kind}")
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each architecture checks its values in its own way
        raise InputError(f"{folder}/config.json cannot be used ({first_line(error)}); save or download it again") from None
    return Checkpoint(text, folder, config)


def is_checkpoint(text: str) -> bool:
    """Return whether ``text`` names a folder or a hub id such as ``organisation/name``."""
    return "/" in text or (bool(text) and Path(text).expanduser().is_dir())


def _draw_head(model: Any) -> None:
    for name, child in model.named_children():
        if name != model.base_model_prefix:
            for layer in child.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=model.config.initializer_range)
                    nn.init.zeros_(layer.bias)
