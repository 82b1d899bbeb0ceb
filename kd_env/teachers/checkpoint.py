"""Use a checkpoint as a teacher: of Transformers, with its own tokenizer and input length, or of a convolutional network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kd_env.errors import InputError
from kd_env.models.any_classifier import AnyClassifier
from kd_env.models.checkpoint_files import require_single_label, require_weights, teacher_name
from kd_env.models.convolutional import ConvolutionalNetwork
from kd_env.models.encode import Reader, TextReader, TrimmedInputs, take, vocabulary_hash
from kd_env.models.pretrained import open_checkpoint
from kd_env.models.saving import TransformersNetwork
from kd_env.paths import cache_dir, locked
from kd_env.tasks import Task
from kd_env.teachers.classes import ClassMap, match_by_validation, match_classes
from kd_env.teachers.file_hashes import TEACHING_FILE, checkpoint_hash, require_unchanged
from kd_env.types import Inputs, ModelOutput

FORWARD_BATCH = 32
"""Examples in a forward pass. Texts of similar length are put together, so that there is little padding."""
MATCHED = 1000
"""Validation examples by which classes without names are matched; of more, this many evenly spaced ones."""


class CheckpointTeacher:
    """A checkpoint as a teacher.

    Its configuration is read at once, to refuse a checkpoint that does not fit the task; its weights when they are needed. It has
    ``layers`` and ``attention`` where the architecture is a known one; others have ``layers`` if the model shows them. Its attention can
    only be compared with a student of the same :attr:`vocabulary`.
    """

    def __init__(self, text: str, task: Task, name: str | None = None, classes: Mapping[str, str] | None = None) -> None:
        """Open a checkpoint.

        Args:
            text: a folder or a hub id.
            name: name of the teacher; by default the last part of ``text``.
            classes: names of the task's classes by those of the checkpoint, see :mod:`kd_env.teachers.classes`.

        Raises:
            InputError: the checkpoint cannot be used, is not a classifier of one class for each example, or its classes do not match.
        """
        self._checkpoint = open_checkpoint(text, task)
        self.name = name or teacher_name(text)
        self._task = task
        require_single_label(self._checkpoint.folder, self._checkpoint.config)
        self._matched_by_name = match_classes(text, self._checkpoint.config.id2label, task, classes)
        require_weights(self._checkpoint.folder)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out network and tokenizer, which are read again where the teacher is unpickled."""
        return {name: value for name, value in self.__dict__.items() if name not in ("network", "_read")}

    @property
    def folder(self) -> Path:
        """Folder of its files."""
        return self._checkpoint.folder

    @cached_property
    def network(self) -> TransformersNetwork | AnyClassifier | ConvolutionalNetwork:
        """Its network; logits are in the order of its own classes."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return self._checkpoint.classifier().to(device)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about its classes, and whether the task's data have changed; one sentence each."""
        return (*self._classes.notes, *self._changed_data())

    def _changed_data(self) -> tuple[str, ...]:
        """Return a sentence if ``kd-env teach`` taught it on other data of this task, whose splits may have been others."""
        try:
            teaching = json.loads((self.folder / TEACHING_FILE).read_text())
            same = teaching["task"] != self._task.name or teaching["task_content"] == self._task.fingerprint
        except (OSError, ValueError, KeyError, TypeError):
            return ()
        return () if same else ("the task's data have changed since it was taught, so held-out scores may be too high; teach it again",)

    @cached_property
    def _classes(self) -> ClassMap:
        """How its classes become the task's. Classes without names are matched by validation once, and the result is cached."""
        if not self._matched_by_name.assumed:
            return self._matched_by_name
        task, files = self._task, checkpoint_hash(self.folder)
        path = cache_dir() / "teachers" / f"classes-{hashlib.sha256(f'{files}|{task.fingerprint}'.encode()).hexdigest()[:16]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            try:
                order, notes = json.loads(path.read_text())
                return ClassMap(tuple((int(number),) for number in order), tuple(map(str, notes)))
            except (FileNotFoundError, ValueError, TypeError):  # not there yet, or damaged
                pass
            rows = np.linspace(0, len(task.validation) - 1, min(len(task.validation), MATCHED)).round().astype(np.int64)
            split = task.validation.take(rows)
            logits = self._own_outputs(split.inputs, frozenset()).logits.numpy()
            matched = match_by_validation(self._matched_by_name, logits, split.labels, task.num_classes)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps([[column[0] for column in matched.columns], matched.notes]))
            partial.replace(path)
        return matched

    @cached_property
    def _read(self) -> Reader:
        return self._checkpoint.reader()

    @property
    def read(self) -> Reader:
        """Function that encodes raw inputs for its network."""
        return self._read

    @property
    def class_map(self) -> ClassMap:
        """How its classes become the task's."""
        return self._classes

    @cached_property
    def vocabulary(self) -> str | None:
        """Hash of its tokenizer's vocabulary; ``None`` for images."""
        return vocabulary_hash(self._read.tokenizer) if isinstance(self._read, TextReader) else None

    def text_limit(self) -> tuple[Any, int] | None:
        """Return its tokenizer and the number of tokens at which it cuts texts; ``None`` for images."""
        return (self._read.tokenizer, self._read.max_length) if isinstance(self._read, TextReader) else None

    def num_tokens(self, inputs: np.ndarray) -> int:
        """Return the number of tokens of the longest of some texts."""
        return self._read(inputs)["input_ids"].shape[1]

    def fingerprint(self) -> str:
        """Return the hash of its files' contents and of the order of the classes.

        Raises:
            InputError: a file has changed since ``kd-env teach`` wrote it.
        """
        require_unchanged(self.folder)
        return hashlib.sha256(f"{checkpoint_hash(self.folder)}:{self._classes.key}".encode()).hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Run the network in evaluation mode and return all of its outputs."""
        return self.forward(inputs, frozenset({"layers", "attention", "maps"}))

    def head(self) -> tuple[Tensor, Tensor]:
        """Return weights ``[C, D]`` and biases ``[C]`` of its last linear layer, in the order of the task's classes.

        Raises:
            InputError: classes are joined, or the logits do not come from a linear layer.
        """
        if not self._classes.is_linear:
            raise InputError(f"teacher {self.name!r} has joined classes, whose logits are no linear map of features; leave out the hints")
        if isinstance(self.network, AnyClassifier):
            self._own_outputs(self._task.validation.inputs[:2], frozenset())  # a pass finds its last linear layer
        classifier = self.network.classifier
        bias = torch.zeros(classifier.out_features) if classifier.bias is None else classifier.bias.detach().float().cpu()
        return self._classes.head(classifier.weight.detach().float().cpu(), bias)

    def forward(self, inputs: np.ndarray, extra_outputs: frozenset[str]) -> ModelOutput:
        """Run the network in evaluation mode; the more inputs at once, the less padding there is.

        Args:
            inputs: raw inputs as the task holds them, ``[B, ...]``.
            extra_outputs: what to return besides logits and features, of ``layers``, ``attention``, ``maps`` and ``maps.STAGE``.
        """
        output = self._own_outputs(inputs, extra_outputs)
        return output._replace(logits=self._classes.logits(output.logits))

    @torch.no_grad()
    def forward_in_batches(
        self, inputs: np.ndarray, extra_outputs: frozenset[str], start: int = 0
    ) -> Iterator[tuple[np.ndarray, int, ModelOutput]]:
        """Run the batches that :meth:`forward` runs, from number ``start`` on.

        Yields:
            Positions of the batch's inputs, number of inputs so far, outputs.
        """
        encoded = self._read(inputs)
        device = next(self.network.parameters()).device
        batches = self._batches(encoded, len(inputs))
        done = sum(map(len, batches[:start]))
        for rows in batches[start:]:
            output = self.network(extra_outputs=extra_outputs, **take(encoded, rows, device)).map(lambda tensor: tensor.float().cpu())
            done += len(rows)
            yield rows, done, output._replace(logits=self._classes.logits(output.logits))

    def _batches(self, encoded: Inputs, count: int) -> list[np.ndarray]:
        """Return the rows of each batch, texts sorted by length."""
        if not isinstance(encoded, TrimmedInputs):
            groups = [np.arange(count)]
        else:
            lengths = encoded["attention_mask"].sum(1)
            order = lengths.argsort(stable=True)
            groups = [order.numpy()]
            if isinstance(self.network, AnyClassifier):  # its batches must have no padding
                groups = np.split(groups[0], np.flatnonzero(np.diff(lengths[order].numpy())) + 1)
        return [rows[start : start + FORWARD_BATCH] for rows in groups for start in range(0, len(rows), FORWARD_BATCH)]

    @torch.no_grad()
    def _own_outputs(self, inputs: np.ndarray, extra_outputs: frozenset[str]) -> ModelOutput:
        """Return the outputs for some inputs, with logits in the order of the checkpoint's own classes."""
        encoded = self._read(inputs)
        device = next(self.network.parameters()).device
        batches = self._batches(encoded, len(inputs))
        outputs = [self.network(extra_outputs=extra_outputs, **take(encoded, batch, device)) for batch in batches]
        original_order = torch.from_numpy(np.concatenate(batches)).argsort()

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.cat(parts)[original_order].float().cpu()

        layers, attention, maps = (
            [part for part in parts if part is not None]
            for parts in zip(*((output.layers, output.attention, output.maps) for output in outputs), strict=True)
        )
        return ModelOutput(
            joined([output.logits for output in outputs]),
            joined([output.features for output in outputs]),
            joined(layers) if layers else None,
            joined(_padded(attention)) if attention else None,
            maps=joined(maps) if maps else None,
            stages={stage: joined([output.stages[stage] for output in outputs]) for stage in outputs[0].stages},
        )


def _padded(attention: list[Tensor]) -> list[Tensor]:
    tokens = max(part.shape[-1] for part in attention)
    return [pad(part, (0, tokens - part.shape[-1], 0, tokens - part.shape[-1])) for part in attention]
