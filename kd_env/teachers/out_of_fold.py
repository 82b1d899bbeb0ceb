"""Combine out-of-fold teachers: F checkpoints, each trained without one fold of train, that answer as one teacher.

The fold of an example follows from its content, so that a training example is always answered by a model that was not trained on it. Other
examples (reward, validation, test) are answered by the model of their fold too: one model each, so that all answers are of the same kind.
Features come from F networks, each with its own space, so layers and attention are not given.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kd_env.errors import InputError
from kd_env.interrupts import CHECKPOINT_MINUTES
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import ProgressCallback, finetune
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of
from kd_env.types import ModelOutput

FOLDS_FILE = "folds.json"
"""Marks the folder of such a teacher and holds the number of folds."""

MAX_FOLDS = 100
"""The largest number of folds, each of which is a teacher to train."""


class OutOfFoldTeacher:
    """Answers each example with the model that was trained without its fold."""

    def __init__(self, folder: Path, task: Task, name: str | None = None) -> None:
        """Open the checkpoints in a folder that ``kd-env teach --folds`` wrote.

        Raises:
            InputError: a checkpoint is missing or cannot be used, or the task has stored views.
        """
        _refuse_views(task)
        path = folder / FOLDS_FILE
        try:
            num_folds = int(json.loads(path.read_text())["folds"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{path}: it does not hold the number of folds; make that teacher again with kd-env teach --folds") from None
        self.name = name or folder.resolve().name
        self._members = [CheckpointTeacher(str(folder / f"fold-{fold}"), task) for fold in range(num_folds)]

    @property
    def folders(self) -> list[Path]:
        """Folders of its checkpoints, one per fold."""
        return [member.folder for member in self._members]

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on its checkpoints."""
        return tuple(dict.fromkeys(note for member in self._members for note in member.notes))

    def fingerprint(self) -> str:
        """Return the hash of all of its checkpoints."""
        return hashlib.sha256(":".join(member.fingerprint() for member in self._members).encode()).hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Run for each example the model of its fold, in evaluation mode; return logits and features."""
        folds = np.array([fold_of(example, len(self._members)) for example in inputs])
        rows_of = {fold: np.flatnonzero(folds == fold) for fold in np.unique(folds)}
        outputs = [self._members[fold](inputs[rows]) for fold, rows in rows_of.items()]
        original_order = torch.from_numpy(np.concatenate(list(rows_of.values()))).argsort()
        return ModelOutput(
            torch.cat([output.logits for output in outputs])[original_order],
            torch.cat([output.features for output in outputs])[original_order],
        )


def finetune_folds(
    task: Task,
    config: FinetuneConfig,
    folds: int,
    out: Path,
    progress: ProgressCallback | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> Path:
    """Fine-tune the F teachers ``out/fold-0`` and so on, and return ``out``. Teachers that are complete are left as they are.

    Raises:
        InputError: ``folds`` is not from 2 to :data:`MAX_FOLDS`, the task has stored views, ``out`` holds something else, or anything in
            :func:`~kd_env.teachers.finetune.finetune`.
    """
    if not 2 <= folds <= MAX_FOLDS:
        raise InputError(f"folds={folds}: must be at least 2, at most {MAX_FOLDS}; leave it out for one teacher of all examples")
    _refuse_views(task)
    config.filled(task)
    if out.exists() and not (out.is_dir() and all(_is_of_folds(path.name) for path in out.iterdir())):
        raise InputError(f"{out} holds something that kd-env teach --folds did not write; name a new folder")
    for fold in range(folds):
        finetune(task, replace(config, fold=fold, folds=folds), out / f"fold-{fold}", progress, checkpoint_minutes)
    (out / FOLDS_FILE).write_text(json.dumps({"folds": folds}))
    return out


def _refuse_views(task: Task) -> None:
    if task.train.originals is not None:
        raise InputError(
            f"task {task.name!r}: out-of-fold teachers know an image by its pixels, and the stored views of one image would be in several "
            "folds; leave views out, or --folds"
        )


def _is_of_folds(name: str) -> bool:
    """Whether a file of that name is part of such a teacher, or of one that is being trained (``.fold-0.partial``)."""
    return name.lstrip(".").split("-")[0] in ("fold", FOLDS_FILE)
