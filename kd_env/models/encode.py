"""Encode inputs as tensors. In: raw images or texts. Out: inputs of a network, one row per example."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kd_env.tasks import Task
from kd_env.tasks.wordpiece import MAX_TOKENS
from kd_env.types import Inputs

Reader = Callable[[np.ndarray], Inputs]
"""Function that encodes raw inputs of a task for a network."""

EVALUATION_BATCH = 512
"""Largest number of rows in one evaluation pass."""

DEFAULT_MAX_TOKENS = MAX_TOKENS
"""Number of tokens to which a student's texts are cut, unless ``max_length`` is given."""

COUNTED = 5000
"""Texts that are encoded to count those that are cut; of more, this many evenly spaced ones."""


class TrimmedInputs(Inputs):
    """Padded texts. :func:`take` cuts the padding of the rows that it returns to the longest of them.

    The built-in networks do not use this class, because less padding changes the last bits of their outputs, and so the committed records.
    """


def encode(task: Task, raw: np.ndarray) -> Inputs:
    """Return raw inputs encoded for built-in networks: ``pixel_values [N, ...]``, or ``input_ids`` and ``attention_mask``, each ``[N, T]``.

    Texts are cut to the task's ``max_length``. In a pair (``[N, 2]``), the longer text is cut, with a separator between the two.
    """
    if task.kind == "image":
        return {"pixel_values": torch.from_numpy(raw)}
    assert task.tokenizer is not None, f"task {task.name!r} has texts but no tokenizer"
    return _tokens(task.tokenizer(), raw, task.max_length, token_types=False)


@dataclass(frozen=True)
class TextReader:
    """Encodes texts for a checkpoint.

    Attributes:
        tokenizer: tokenizer of the checkpoint.
        max_length: number of tokens to which texts are cut.
        token_types: whether to add ``token_type_ids``, which distinguish the two texts of a pair.
    """

    tokenizer: Any
    max_length: int
    token_types: bool

    def __call__(self, raw: np.ndarray) -> Inputs:
        """Encode texts ``[N]`` or pairs ``[N, 2]`` as ``input_ids``, ``attention_mask`` and (optional) ``token_type_ids``, ``[N, T]``."""
        return TrimmedInputs(_tokens(self.tokenizer, raw, self.max_length, self.token_types))


@dataclass(frozen=True)
class ImageReader:
    """Encodes images for a checkpoint: resizes them to ``side``, adapts the number of channels, and normalises.

    Attributes:
        side: height and width in pixels.
        channels: number of channels.
        mean: mean of each channel, which is subtracted.
        std: standard deviation of each channel, by which the difference is divided.
    """

    side: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, raw: np.ndarray) -> Inputs:
        """Encode images ``[N, channels, H, W]`` in [0, 1] as ``pixel_values [N, channels, side, side]``."""
        pixels = _with_channels(torch.from_numpy(raw), self.channels)
        if pixels.shape[2:] != (self.side, self.side):
            pixels = interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return {"pixel_values": (pixels - mean) / std}


@dataclass(frozen=True)
class PixelReader:
    """Encodes images for a convolutional network, which normalises them itself: adapts the number of channels.

    Attributes:
        channels: number of channels.
    """

    channels: int

    def __call__(self, raw: np.ndarray) -> Inputs:
        """Encode images ``[N, channels, H, W]`` in [0, 1] as ``pixel_values`` of the same size."""
        return {"pixel_values": _with_channels(torch.from_numpy(raw), self.channels)}


def take(inputs: Inputs, rows: object, device: torch.device) -> Inputs:
    """Return rows of encoded inputs on ``device``; ``rows`` is an index array or a slice."""
    batch = {name: tensor[rows] for name, tensor in inputs.items()}  # type: ignore[index]
    if isinstance(inputs, TrimmedInputs):
        longest = int(batch["attention_mask"].sum(1).max())
        batch = {name: tensor[:, :longest] for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def text_lengths(inputs: Inputs) -> np.ndarray | None:
    """Return the number of tokens of each row, ``[N]``, if padding can be cut, else ``None``."""
    return inputs["attention_mask"].sum(1).numpy() if isinstance(inputs, TrimmedInputs) else None


def evaluate_in_batches(run: Callable[[np.ndarray], Tensor], inputs: Inputs, groups: int = 1) -> Tensor:
    """Return the outputs of ``run`` for all rows, ``[S, N, C]``, computed in batches.

    If padding can be cut, a batch holds texts of similar length.

    Args:
        run: function that maps row indices ``[groups, n]`` to outputs ``[S, n, C]``; S is ``groups``, or any number if ``groups`` is 1.
        inputs: encoded inputs, ``[groups * N, ...]``, group 0 first.
        groups: number of groups of inputs.
    """
    size, lengths = len(next(iter(inputs.values()))) // groups, text_lengths(inputs)
    rows, batch_size = np.arange(groups * size).reshape(groups, size), EVALUATION_BATCH
    if lengths is None:
        return torch.cat([run(rows[:, start : start + batch_size]) for start in range(0, size, batch_size)], 1)
    order = lengths.reshape(groups, size).argsort(1, kind="stable")
    rows, batch_size = np.take_along_axis(rows, order, 1), min(batch_size, max(32, -(-size // 16)))
    sorted_outputs = torch.cat([run(rows[:, start : start + batch_size]) for start in range(0, size, batch_size)], 1)
    inverse = torch.from_numpy(order.argsort(1)).to(sorted_outputs.device)[..., None]  # [groups, N, 1]
    return sorted_outputs.gather(1, inverse.expand_as(sorted_outputs))


def count_cut(tokenizer: Any, raw: np.ndarray, max_length: int) -> tuple[int, bool]:
    """Return how many texts ``[N]`` or pairs ``[N, 2]`` have more than ``max_length`` tokens, and whether that is exact or estimated."""
    rows = raw[:, None] if raw.ndim == 1 else raw
    sizes = np.array(
        [sum(len(text) if text.isascii() else len(text.encode()) for text in row) for row in rows]
    )  # bytes: at most one token each
    long = np.flatnonzero(sizes > max_length - 4)
    counted = long[np.linspace(0, len(long) - 1, COUNTED).round().astype(np.int64)] if len(long) > COUNTED else long
    if len(counted) == 0:
        return 0, True
    texts = [rows[counted, column].tolist() for column in range(rows.shape[1])]
    encoding = tokenizer(*texts, truncation=False, return_attention_mask=False, return_token_type_ids=False, verbose=False)
    share = float(np.mean([len(ids) > max_length for ids in encoding["input_ids"]]))
    return round(share * len(long)), len(counted) == len(long)


def vocabulary_hash(tokenizer: Any) -> str:
    """Return a hash of a tokenizer's tokens and their ids."""
    return hashlib.sha256("\0".join(f"{number}:{token}" for token, number in sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def _with_channels(pixels: Tensor, channels: int) -> Tensor:
    """Return images with this number of channels, all equal to the mean if it changes."""
    return pixels if pixels.shape[1] == channels else pixels.mean(1, keepdim=True).expand(-1, channels, -1, -1)


def _tokens(tokenizer: Any, raw: np.ndarray, max_length: int, token_types: bool) -> Inputs:
    texts = [raw.tolist()] if raw.ndim == 1 else [raw[:, 0].tolist(), raw[:, 1].tolist()]
    encoding = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=token_types)
    ids = encoding["input_ids"]
    lengths = np.array([len(row) for row in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]  # [N, T]
    padded = np.full(mask.shape, tokenizer.pad_token_id)
    padded[mask] = np.concatenate(ids)  # takes half the time of the tokenizer's own padding
    inputs = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    if token_types:
        types = np.zeros_like(padded)
        types[mask] = np.concatenate(encoding["token_type_ids"])
        inputs["token_type_ids"] = torch.from_numpy(types)
    return inputs
