"""A Transformers checkpoint as a teacher, with its own tokenizer and input length."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import require_weights
from kd_env.models.encode import Reader, TextReader, TrimmedInputs, take, vocabulary_hash
from kd_env.models.encoder import Encoder
from kd_env.models.pretrained import open_checkpoint
from kd_env.tasks import Task
from kd_env.teachers.file_hashes import checkpoint_hash
from kd_env.types import ModelOutput

FORWARD_BATCH = 32
"""Examples in a forward pass. Texts of similar length are put together, so that there is little padding."""


class CheckpointTeacher:
    """A checkpoint as a teacher.

    Its configuration is read at once, so that a checkpoint that does not fit the task is refused early; the weights are read when they are
    first needed. It has ``layers`` and ``attention``; its attention can only be compared with a student of the same :attr:`vocabulary`.
    """

    def __init__(self, text: str, task: Task, name: str | None = None) -> None:
        """Open a checkpoint.

        Args:
            text: a folder or a hub id.
            name: name of the teacher; by default the last part of ``text``.

        Raises:
            InputError: the checkpoint cannot be used, or has other classes than ``task``.
        """
        self._checkpoint = open_checkpoint(text, task)
        self.name = name or Path(text.rstrip("/")).name
        self._num_classes = task.num_classes
        self._order = class_order(text, self._checkpoint.config.id2label, task)
        require_weights(self._checkpoint.folder)

    @property
    def folder(self) -> Path:
        """Folder of its files."""
        return self._checkpoint.folder

    @cached_property
    def network(self) -> Encoder:
        """Its network; logits are in the order of its own classes."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return self._checkpoint.network(self._num_classes, new_head=False).to(device)

    @cached_property
    def _read(self) -> Reader:
        return self._checkpoint.reader()

    @cached_property
    def vocabulary(self) -> str | None:
        """Hash of its tokenizer's vocabulary; ``None`` for images."""
        return vocabulary_hash(self._read.tokenizer) if isinstance(self._read, TextReader) else None

    def num_tokens(self, inputs: np.ndarray) -> int:
        """Return the number of tokens of the longest of some texts."""
        return self._read(inputs)["input_ids"].shape[1]

    def fingerprint(self) -> str:
        """Return the hash of its files' contents and of the order of the classes."""
        return hashlib.sha256(f"{checkpoint_hash(self.folder)}:{self._order}".encode()).hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Run the network in evaluation mode and return all of its outputs."""
        return self.forward(inputs, frozenset({"layers", "attention"}))

    def head(self) -> tuple[Tensor, Tensor]:
        """Return weights ``[C, D]`` and biases ``[C]`` of its last linear layer, in the order of the task's classes."""
        classifier = self.network.classifier
        return classifier.weight.detach()[self._order].float().cpu(), classifier.bias.detach()[self._order].float().cpu()

    @torch.no_grad()
    def forward(self, inputs: np.ndarray, extra_outputs: frozenset[str]) -> ModelOutput:
        """Run the network in evaluation mode; the more inputs at once, the less padding there is.

        Args:
            inputs: raw inputs as the task holds them, ``[B, ...]``.
            extra_outputs: what to return besides logits and features, of ``layers`` and ``attention``.
        """
        encoded = self._read(inputs)
        count = len(inputs)
        order = encoded["attention_mask"].sum(1).argsort(stable=True) if isinstance(encoded, TrimmedInputs) else torch.arange(count)
        device = next(self.network.parameters()).device
        outputs = [
            self.network(extra_outputs=extra_outputs, **take(encoded, order[start : start + FORWARD_BATCH], device))
            for start in range(0, count, FORWARD_BATCH)
        ]
        original_order = order.argsort()

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.cat(parts)[original_order].float().cpu()

        return ModelOutput(
            joined([output.logits for output in outputs])[:, self._order],
            joined([output.features for output in outputs]),
            joined([output.layers for output in outputs]) if "layers" in extra_outputs else None,
            joined(_padded([output.attention for output in outputs])) if "attention" in extra_outputs else None,
        )


def class_order(text: str, id2label: dict[int, str], task: Task) -> list[int]:
    """Return for each class of ``task`` its number in the checkpoint.

    Names are compared in lower case. A checkpoint whose classes are called ``LABEL_0`` and so on has them in the task's order.

    Args:
        text: the checkpoint as the user named it, for the message.

    Raises:
        InputError: the checkpoint has other classes than the task.
    """
    names = [str(id2label[number]) for number in sorted(id2label)]
    if len(names) == task.num_classes and all(name.upper() == f"LABEL_{number}" for number, name in enumerate(names)):
        return list(range(len(names)))
    checkpoint_classes, task_classes = ([name.strip().casefold() for name in classes] for classes in (names, task.class_names))
    if sorted(checkpoint_classes) != sorted(task_classes) or len(set(task_classes)) < len(task_classes):
        raise InputError(
            f"checkpoint {text!r} has the classes {_listed(names)}, task {task.name!r} has {_listed(task.class_names)}; "
            "give a teacher of the same classes, or write the task's names into id2label of its config.json"
        )
    return [checkpoint_classes.index(name) for name in task_classes]


def _padded(attention: list[Tensor]) -> list[Tensor]:
    tokens = max(part.shape[-1] for part in attention)
    return [pad(part, (0, tokens - part.shape[-1], 0, tokens - part.shape[-1])) for part in attention]


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if len(names) <= 6 else f"{len(names)}: {', '.join(names[:5])} ..."
