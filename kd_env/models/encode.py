"""Splits as tensors. In: raw images or texts. Out: what a network reads, one row an example."""

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
from kd_env.types import Inputs

Reader = Callable[[np.ndarray], Inputs]
"""How a network reads raw inputs of a task."""

EVALUATION_BATCH = 512
"""Rows of a pass in evaluation, at most."""

MAX_TOKENS = 128
"""Tokens that a student reads of a text, unless it is told otherwise; the rest is cut off."""


class TrimmedInputs(Inputs):
    """Padded texts that are cut to the longest of the rows that are taken.

    Not those of the built-in networks: other padding changes the last bits of what they say, and with them every record there is.
    """


def encode(task: Task, raw: np.ndarray) -> Inputs:
    """Raw inputs of a split, for the built-in networks: ``pixel_values [N, ...]``, or ``input_ids`` and ``attention_mask`` ``[N, T]``.

    Texts are cut to 128 tokens, a pair (``[N, 2]``) where it is longer; a separator token alone parts the two.
    """
    if task.kind == "image":
        return {"pixel_values": torch.from_numpy(raw)}
    assert task.tokenizer is not None, f"task {task.name!r} has texts and no tokenizer"
    return _tokens(task.tokenizer(), raw, MAX_TOKENS, token_types=False)


@dataclass(frozen=True)
class TextReader:
    """Reads texts as a checkpoint does; ``token_types`` tells the two texts of a pair apart."""

    tokenizer: Any
    max_length: int
    token_types: bool

    def __call__(self, raw: np.ndarray) -> Inputs:
        """Texts ``[N]``, or pairs ``[N, 2]``, as ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, ``[N, T]``."""
        return TrimmedInputs(_tokens(self.tokenizer, raw, self.max_length, self.token_types))


@dataclass(frozen=True)
class ImageReader:
    """Reads images as a checkpoint does: resized, with its number of channels, normalised."""

    side: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, raw: np.ndarray) -> Inputs:
        """Images ``[N, channels, H, W]`` in [0, 1] as ``pixel_values [N, C, side, side]``."""
        pixels = torch.from_numpy(raw)
        if pixels.shape[1] != self.channels:
            pixels = pixels.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        if pixels.shape[2:] != (self.side, self.side):
            pixels = interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (self.mean, self.std))
        return {"pixel_values": (pixels - mean) / std}


def take(inputs: Inputs, rows: object, device: torch.device) -> Inputs:
    """Rows of encoded inputs, on ``device``; ``rows`` is an index array or a slice."""
    taken = {name: tensor[rows] for name, tensor in inputs.items()}  # type: ignore[index]
    if isinstance(inputs, TrimmedInputs):
        longest = int(taken["attention_mask"].sum(1).max())
        taken = {name: tensor[:, :longest] for name, tensor in taken.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in taken.items()}


def text_lengths(inputs: Inputs) -> np.ndarray | None:
    """Tokens of each row ``[N]`` where padding is cut, ``None`` where it is not or there is none."""
    return inputs["attention_mask"].sum(1).numpy() if isinstance(inputs, TrimmedInputs) else None


def in_batches(run: Callable[[np.ndarray], Tensor], inputs: Inputs, groups: int = 1) -> Tensor:
    """What ``run`` says of all rows ``[S, N, C]``, a portion at a time; texts of like length together, where padding is cut.

    Args:
        run: row numbers ``[groups, n]`` -> ``[S, n, C]``; S is ``groups``, or any number if ``groups`` is 1.
        inputs: ``[groups * N, ...]``, those of group 0 first.
    """
    size, lengths = len(next(iter(inputs.values()))) // groups, text_lengths(inputs)
    rows, portion = np.arange(groups * size).reshape(groups, size), EVALUATION_BATCH
    if lengths is None:
        return torch.cat([run(rows[:, start : start + portion]) for start in range(0, size, portion)], 1)
    order = lengths.reshape(groups, size).argsort(1, kind="stable")
    rows, portion = np.take_along_axis(rows, order, 1), min(portion, max(32, -(-size // 16)))
    said = torch.cat([run(rows[:, start : start + portion]) for start in range(0, size, portion)], 1)
    back = torch.from_numpy(order.argsort(1)).to(said.device)[..., None]  # [groups, N, 1]
    return said.gather(1, back.expand_as(said))


def vocabulary_hash(tokenizer: Any) -> str:
    """Hash of a tokenizer's tokens and their numbers."""
    return hashlib.sha256("\0".join(f"{number}:{token}" for token, number in sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def _tokens(tokenizer: Any, raw: np.ndarray, max_length: int, token_types: bool) -> Inputs:
    texts = [raw.tolist()] if raw.ndim == 1 else [raw[:, 0].tolist(), raw[:, 1].tolist()]
    said = tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=token_types)
    ids = said["input_ids"]
    lengths = np.array([len(row) for row in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]  # [N, T]
    padded = np.full(mask.shape, tokenizer.pad_token_id)
    padded[mask] = np.concatenate(ids)  # padding here takes half the time that the tokenizer's own does
    inputs = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    if token_types:
        types = np.zeros_like(padded)
        types[mask] = np.concatenate(said["token_type_ids"])
        inputs["token_type_ids"] = torch.from_numpy(types)
    return inputs
