"""Out-of-fold teachers: F checkpoints, each trained without its fold. In: a folder that ``kd-env teach --folds`` wrote. Out: a ``Teacher``.

An example's fold follows from its content, so what the teacher says of a training example is never memorised. Of other examples (reward,
validation, test) the same model speaks, one model each: the student is taught, and measured, with answers of one kind. Batch come from
F networks, each with a space of its own, so layers and attention are not shown.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import Report, finetune
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of
from kd_env.types import ModelOutput

FILE = "folds.json"


class FoldedTeacher:
    """Asks, for each example, the model that was trained without its fold."""

    def __init__(self, folder: Path, task: Task, name: str | None = None) -> None:
        """Open the folder's checkpoints.

        Raises:
            InputError: one of them is missing or cannot be used.
        """
        path = folder / FILE
        try:
            count = int(json.loads(path.read_text())["folds"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{path}: no number of folds in it; make that teacher again with kd-env teach --folds") from None
        self.name = name or folder.resolve().name
        self._members = [CheckpointTeacher(str(folder / f"fold-{number}"), task) for number in range(count)]

    @property
    def folders(self) -> list[Path]:
        """Where the files of its models are, one a fold."""
        return [one.folder for one in self._members]

    def fingerprint(self) -> str:
        """Hash of all of its checkpoints."""
        return hashlib.sha256(":".join(one.fingerprint() for one in self._members).encode()).hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Speak, each example by its own model."""
        folds = np.array([fold_of(one, len(self._members)) for one in inputs])
        asked = [(rows, self._members[fold](inputs[rows])) for fold in np.unique(folds) for rows in [np.flatnonzero(folds == fold)]]
        back = torch.from_numpy(np.concatenate([rows for rows, _ in asked])).argsort()
        return ModelOutput(torch.cat([said.logits for _, said in asked])[back], torch.cat([said.features for _, said in asked])[back])


def finetune_folds(task: Task, config: FinetuneConfig, folds: int, out: Path, report: Report | None = None) -> Path:
    """Make the F teachers ``out/fold-0`` and so on; what is finished is not made again.

    Raises:
        InputError: fewer than 2 folds, or anything in :func:`~kd_env.teachers.finetune.finetune`.
    """
    if folds < 2:
        raise InputError(f"folds={folds}: must be at least 2; leave it out for one teacher of all examples")
    config.filled(task)
    if out.exists() and (not out.is_dir() or any(path.name.lstrip(".").split("-")[0] not in ("fold", FILE) for path in out.iterdir())):
        raise InputError(f"{out} holds something that kd-env teach --folds did not write; name a new folder")
    for number in range(folds):
        finetune(task, replace(config, fold=number, folds=folds), out / f"fold-{number}", report)
    (out / FILE).write_text(json.dumps({"folds": folds}))
    return out
