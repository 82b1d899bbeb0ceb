"""A Transformers checkpoint as a teacher, with its own tokenizer and length. In: a folder or a hub id, and a task. Out: a ``Teacher``."""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import FILES, require_weights
from kd_env.models.encode import Reader, TextReader, TrimmedInputs, take, vocabulary_hash
from kd_env.models.encoder import Encoder
from kd_env.models.pretrained import open_checkpoint
from kd_env.tasks import Task
from kd_env.types import ModelOutput

TOGETHER = 32
"""Examples of a forward pass, texts of like length together: little of it is padding."""


class CheckpointTeacher:
    """Opened at once, so that what does not fit the task is said; the weights are read when it is first asked.

    It shows ``layers`` and ``attention``; attention is only comparable with a student of the same :attr:`vocabulary`.
    """

    def __init__(self, text: str, task: Task, name: str | None = None) -> None:
        """Open the checkpoint ``text`` names.

        Raises:
            InputError: it cannot be used, or has other classes than ``task``.
        """
        self._checkpoint = open_checkpoint(text, task)
        self.name = name or Path(text.rstrip("/")).name
        self._classes = task.num_classes
        self._order = class_order(text, self._checkpoint.config.id2label, task)
        require_weights(self._checkpoint.folder)

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._checkpoint.folder

    @cached_property
    def network(self) -> Encoder:
        """Its network; logits are in the order of its own classes."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return self._checkpoint.network(self._classes, new_head=False).to(device)

    @cached_property
    def _read(self) -> Reader:
        return self._checkpoint.reader()

    @cached_property
    def vocabulary(self) -> str | None:
        """Hash of its tokenizer's vocabulary; of images ``None``."""
        return vocabulary_hash(self._read.tokenizer) if isinstance(self._read, TextReader) else None

    def tokens(self, inputs: np.ndarray) -> int:
        """Tokens of the longest of some texts."""
        return self._read(inputs)["input_ids"].shape[1]

    def fingerprint(self) -> str:
        """Hash of its files' contents and of the order of the classes."""
        return hashlib.sha256(f"{files_hash(self.folder)}:{self._order}".encode()).hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Speak, in evaluation mode."""
        return self.say(inputs, frozenset({"layers", "attention"}))

    def head(self) -> tuple[Tensor, Tensor]:
        """Its last linear layer, in the order of the task's classes: ``[C, D]``, ``[C]``."""
        classifier = self.network.classifier
        return classifier.weight.detach()[self._order].float().cpu(), classifier.bias.detach()[self._order].float().cpu()

    @torch.no_grad()
    def say(self, inputs: np.ndarray, shown: frozenset[str]) -> ModelOutput:
        """Speak, and show no more than is asked for; the more inputs at once, the less of the work is padding."""
        encoded = self._read(inputs)
        count = len(inputs)
        order = encoded["attention_mask"].sum(1).argsort(stable=True) if isinstance(encoded, TrimmedInputs) else torch.arange(count)
        device = next(self.network.parameters()).device
        parts = [
            self.network(extra_outputs=shown, **take(encoded, order[start : start + TOGETHER], device))
            for start in range(0, count, TOGETHER)
        ]
        back = order.argsort()

        def joined(pieces: list[Tensor]) -> Tensor:
            return torch.cat(pieces)[back].float().cpu()

        return ModelOutput(
            joined([part.logits for part in parts])[:, self._order],
            joined([part.features for part in parts]),
            joined([part.layers for part in parts]) if "layers" in shown else None,
            joined(_padded([part.attention for part in parts])) if "attention" in shown else None,
        )


def class_order(text: str, id2label: dict[int, str], task: Task) -> list[int]:
    """For each class of ``task`` the checkpoint's number of it; names in any case, ``LABEL_0`` and so on are the task's own order.

    Raises:
        InputError: other classes than the task's.
    """
    said = [str(id2label[number]) for number in sorted(id2label)]
    if len(said) == task.num_classes and all(name.upper() == f"LABEL_{number}" for number, name in enumerate(said)):
        return list(range(len(said)))
    theirs, ours = ([name.strip().casefold() for name in names] for names in (said, task.class_names))
    if sorted(theirs) != sorted(ours) or len(set(ours)) < len(ours):
        raise InputError(
            f"checkpoint {text!r} has the classes {_shown(said)}, task {task.name!r} has {_shown(task.class_names)}; "
            "give a teacher of the same classes, or write the task's names into id2label of its config.json"
        )
    return [theirs.index(name) for name in ours]


def files_hash(folder: Path) -> str:
    """Hash of the contents of a checkpoint's files."""
    paths = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.name}:{_content(path, stat.st_size, stat.st_mtime_ns)}|".encode())
    return digest.hexdigest()


def content(text: str) -> str:
    """Hash of the files of what ``text`` names, a checkpoint, a folder of several or a pool file; empty if it is none of this machine."""
    path = Path(text).expanduser()
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not text or not path.is_dir():
        return ""
    folders = sorted(inner for inner in [path, *path.rglob("*")] if inner.is_dir() and not inner.name.startswith("."))
    return hashlib.sha256(":".join(files_hash(inner) for inner in folders).encode()).hexdigest()


@lru_cache(maxsize=1024)
def _content(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _padded(attention: list[Tensor]) -> list[Tensor]:
    tokens = max(one.shape[-1] for one in attention)
    return [pad(one, (0, tokens - one.shape[-1], 0, tokens - one.shape[-1])) for one in attention]


def _shown(names: tuple[str, ...] | list[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if len(names) <= 6 else f"{len(names)}: {', '.join(names[:5])} ..."
