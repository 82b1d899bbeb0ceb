"""What a teacher is taught: values a user gives, checked. Out: a :class:`FinetuneConfig`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.encode import DEFAULT_MAX_TOKENS
from kd_env.models.from_plugin import is_plugin
from kd_env.models.networks import begins_as_checkpoint
from kd_env.tasks import Task


@dataclass(frozen=True)
class FinetuneConfig:
    """How a teacher is made.

    Attributes:
        model: a folder, a hub id, ``tiny-bert`` or ``tiny-vit``, with options; what is above the body is new.
        groups: names of the groups it is trained on; empty for all.
        fraction: part of those examples that it sees, drawn by ``seed``.
        epochs: at most; by default 3 of a checkpoint, 20 of a built-in architecture.
        lr: peak of AdamW's learning rate, which rises over a tenth of the updates and falls to 0; by default 5e-5 or 1e-3.
        label_noise: part of the labels replaced by random ones.
        max_length: tokens of a text, the rest is cut off.
        fold, folds: leave out the examples of this fold of so many; -1 for none.
    """

    model: str
    groups: tuple[str, ...] = ()
    fraction: float = 1.0
    epochs: int | None = None
    seed: int = 0
    label_noise: float = 0.0
    batch_size: int = 32
    lr: float | None = None
    max_length: int = DEFAULT_MAX_TOKENS
    fold: int = -1
    folds: int = 0

    def filled(self, task: Task) -> FinetuneConfig:
        """The lesson with its defaults written out.

        Raises:
            InputError: a value out of range, a model that is no transformer, or groups that the task has not.
        """
        built_in = not begins_as_checkpoint(self.model)
        if built_in and (is_plugin(self.model) or spec.parse(self.model).name == "mlp"):
            raise InputError(f"model {self.model!r} is no Transformers model; use tiny-bert, tiny-vit, a folder or a hub id")
        config = replace(
            self,
            epochs=(20 if built_in else 3) if self.epochs is None else self.epochs,
            lr=(1e-3 if built_in else 5e-5) if self.lr is None else self.lr,
        )
        assert config.epochs is not None and config.lr is not None  # noqa: PT018
        longest = DEFAULT_MAX_TOKENS if built_in else 1 << 20
        for name, fits, range_ in (
            ("epochs", config.epochs >= 1, "at least 1"),
            ("seed", config.seed >= 0, "at least 0"),
            ("fraction", 0.0 < config.fraction <= 1.0, "above 0, at most 1"),
            ("label_noise", 0.0 <= config.label_noise <= 1.0, "in [0, 1]"),
            ("batch_size", config.batch_size >= 1, "at least 1"),
            ("lr", 0.0 < config.lr < float("inf"), "above 0"),
            ("max_length", 3 <= config.max_length <= longest, f"in [3, {longest}]"),
        ):
            if not fits:
                raise InputError(f"teacher of {self.model!r}: {name}={getattr(config, name)} must be {range_}")
        for group in self.groups:
            if group not in task.group_names:
                raise spec.unknown(f"group of task {task.name!r}", group, task.group_names or ("none, the task has no groups",))
        return config


def fold_of(text: object, folds: int) -> int:
    """The fold of an example, by its content alone: equal texts in any case and spacing are in one fold."""
    if isinstance(text, np.ndarray) and text.dtype != object:
        content = text.tobytes()
    else:
        content = "\0".join(" ".join(str(one).lower().split()) for one in np.atleast_1d(np.asarray(text, dtype=object))).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") % folds
