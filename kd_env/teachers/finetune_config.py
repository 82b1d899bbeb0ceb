"""Check the values that a user gives for fine-tuning a teacher."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.convolutional import CONVOLUTIONAL
from kd_env.models.from_plugin import is_plugin
from kd_env.models.networks import begins_as_checkpoint
from kd_env.tasks import Task
from kd_env.tasks.splits import text_identity

MAX_TOKENS = 1 << 20
"""Largest number of tokens of a text that can be asked for."""


@dataclass(frozen=True)
class FinetuneConfig:
    """How a teacher is fine-tuned.

    Attributes:
        model: a folder, a hub id, ``tiny-bert``, ``tiny-vit`` or a convolutional network, with options; its head is new.
        groups: names of the groups it is trained on; empty for all.
        fraction: part of those examples that it is trained on, drawn by ``seed``.
        epochs: largest number of epochs; by default 3 for a checkpoint, 20 for a built-in architecture.
        seed: draws the new weights, the examples and their order.
        label_noise: part of the labels that is replaced by random ones.
        batch_size: examples of one update.
        by_length: whether a mini-batch has texts of similar length, which saves padding; otherwise, and for images, it is random.
        lr: peak of the learning rate, which rises over a tenth of the updates and falls to 0; by default 5e-5 for a checkpoint, 1e-3 for a
            built-in architecture, and 0.05 for a built-in convolutional network.
        max_length: tokens of a text; the rest is cut off. By default the task's, which is 128 unless the user says otherwise.
        fold: the fold whose examples are left out; -1 for none.
        folds: number of folds.
    """

    model: str
    groups: tuple[str, ...] = ()
    fraction: float = 1.0
    epochs: int | None = None
    seed: int = 0
    label_noise: float = 0.0
    batch_size: int = 32
    by_length: bool = True
    lr: float | None = None
    max_length: int | None = None
    fold: int = -1
    folds: int = 0

    @property
    def learns_by_sgd(self) -> bool:
        """Whether the model is a new convolutional network. Such a one learns by SGD with momentum, and to the end of its schedule."""
        return not begins_as_checkpoint(self.model) and not is_plugin(self.model) and spec.parse(self.model).name in CONVOLUTIONAL

    def filled(self, task: Task) -> FinetuneConfig:
        """Return the config with its defaults filled in.

        Raises:
            InputError: a value is out of range, the model is not a transformer, or the task lacks a group.
        """
        built_in = not begins_as_checkpoint(self.model)
        usual_lr = 0.05 if self.learns_by_sgd else 1e-3 if built_in else 5e-5
        if built_in and (is_plugin(self.model) or spec.parse(self.model).name == "mlp"):
            usable = "tiny-bert" if task.kind == "text" else "tiny-vit, a convolutional network such as resnet20"
            raise InputError(f"model {self.model!r} cannot be saved as a checkpoint; use {usable}, a folder or a hub id")
        if self.max_length is not None and task.kind != "text":
            raise InputError(f"max_length={self.max_length}: task {task.name!r} has images, and this is the length of texts; leave it out")
        config = replace(
            self,
            epochs=(20 if built_in else 3) if self.epochs is None else self.epochs,
            lr=usual_lr if self.lr is None else self.lr,
            max_length=task.max_length if self.max_length is None else self.max_length,
        )
        assert config.epochs is not None and config.lr is not None and config.max_length is not None  # noqa: PT018
        for name, fits, expected in (
            ("epochs", config.epochs >= 1, "at least 1"),
            ("seed", 0 <= config.seed < 2**62, "at least 0, below 2 ** 62"),
            ("fraction", 0.0 < config.fraction <= 1.0, "above 0, at most 1"),
            ("label_noise", 0.0 <= config.label_noise <= 1.0, "in [0, 1]"),
            ("batch_size", config.batch_size >= 1, "at least 1"),
            ("lr", 0.0 < config.lr < float("inf"), "above 0"),
            ("max_length", 3 <= config.max_length <= MAX_TOKENS, f"in [3, {MAX_TOKENS}]"),
        ):
            if not fits:
                raise InputError(f"teacher of {self.model!r}: {name}={getattr(config, name)} must be {expected}")
        for group in self.groups:
            if group not in task.group_names:
                raise spec.unknown(f"group of task {task.name!r}", group, task.group_names or ("none, the task has no groups",))
        return config


def fold_of(example: object, folds: int) -> int:
    """Return the fold of an example, which depends on its content alone: texts that are equal for splits share a fold.

    Args:
        example: a text, a pair of texts, or an image.
        folds: number of folds F; the result is in ``[0, F)``.
    """
    if isinstance(example, np.ndarray) and example.dtype != object:
        content = example.tobytes()
    else:
        content = text_identity(np.atleast_1d(np.asarray(example, dtype=object)))
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % folds
